#include "train/flops.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>

#include "train/stage_setup.h"

namespace llava {

double measure_matmul_flops(c10::ScalarType dtype, c10::Device device) {
  const at::NoGradGuard no_grad;
  constexpr std::int64_t kSize = 768;
  const at::Tensor a = at::ones({kSize, kSize}, at::TensorOptions().dtype(dtype).device(device));
  at::matmul(a, a);
  double best = 1e30;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    at::matmul(a, a).sum().item<double>();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return 2.0 * kSize * kSize * kSize / best;
}

namespace {

/// Trained weights that are matrices of the decoder's blocks, and whether the head's matrix trains.
struct TrainedDecoder {
  double blocks = 0;
  bool head = false;
};

TrainedDecoder trained_decoder(const ModelConfig& model, const std::vector<NamedParameter>& trained) {
  TrainedDecoder own;
  for (const NamedParameter& p : trained) {
    const bool embedding = p.name.find("embed_tokens") != std::string::npos;
    const bool head = p.name.rfind("lm_head", 0) == 0 || (embedding && model.decoder.tie_word_embeddings);
    own.head |= head;
    if (!head && !embedding && p.name.rfind("language_model.", 0) == 0)
      own.blocks += static_cast<double>(p.tensor.numel());
  }
  return own;
}

double decoder_flops(const ModelConfig& model, const std::vector<NamedParameter>& trained,
                     const StepMetrics& m) {
  const DecoderConfig& d = model.decoder;
  const double head = static_cast<double>(d.vocab_size) * static_cast<double>(d.hidden_size);
  const double blocks =
      static_cast<double>(count_parameters(model).decoder) - head * (d.tie_word_embeddings ? 1 : 2);
  const TrainedDecoder own = trained_decoder(model, trained);
  const auto tokens = static_cast<double>(m.tokens), supervised = static_cast<double>(m.supervised_tokens);
  const auto width = static_cast<double>(d.num_attention_heads * d.head_dim * d.num_hidden_layers);
  return tokens * (4 * blocks + 2 * own.blocks) + supervised * head * (own.head ? 6 : 4) +
         12 * width * m.attended_pairs;
}

double vision_flops(const ModelConfig& model, const std::vector<NamedParameter>& trained,
                    const StepMetrics& m, bool cached) {
  const ParameterCount all = count_parameters(model);
  const TrainedCounts own = count_trained(trained);
  const TowerConfig& t = *model.tower;
  const auto rows = static_cast<double>(t.num_features()), width = static_cast<double>(t.hidden_size);
  const auto views = static_cast<double>(m.views), layers = static_cast<double>(t.num_hidden_layers);
  // Without a trained tower no gradient passes the connector's first matrix.
  const double first = own.tower > 0 ? 0
                                     : width * static_cast<double>(t.select_layers.size()) *
                                           static_cast<double>(model.decoder.hidden_size);
  const double through = own.connector > 0 ? std::max(0.0, static_cast<double>(all.connector) - first) : 0;
  double flops =
      views * static_cast<double>(model.num_image_tokens()) *
      (2 * static_cast<double>(all.connector) + 2 * static_cast<double>(own.connector) + 2 * through);
  if (cached) return flops;
  const double matrices =
      static_cast<double>(all.tower) - (rows + 1) * width;  // positions are added, not multiplied
  const double passes = own.tower > 0 ? 2 : 1;
  flops += views * rows * (2 * passes * matrices + 2 * static_cast<double>(own.tower));
  return flops + views * 4 * width * layers * rows * rows * (own.tower > 0 ? 3 : 1);
}

}  // namespace

double step_flops(const ModelConfig& model, const std::vector<NamedParameter>& trained,
                  const StepMetrics& metrics, bool cached) {
  double flops = decoder_flops(model, trained, metrics);
  if (model.tower && metrics.views > 0) flops += vision_flops(model, trained, metrics, cached);
  return flops;
}

double recomputed_flops(const ModelConfig& model, const std::vector<NamedParameter>& trained,
                        const StepMetrics& m, const GradientCheckpointing& policy, bool cached) {
  double flops = 0;
  const DecoderConfig& d = model.decoder;
  if (policy.llm > 0) {
    const std::int64_t again = (d.num_hidden_layers + policy.llm - 1) / policy.llm;
    const double head = static_cast<double>(d.vocab_size) * static_cast<double>(d.hidden_size);
    const double blocks =
        static_cast<double>(count_parameters(model).decoder) - head * (d.tie_word_embeddings ? 1 : 2);
    const auto width = static_cast<double>(d.num_attention_heads * d.head_dim * d.num_hidden_layers);
    flops += (static_cast<double>(m.tokens) * 2 * blocks + 4 * width * m.attended_pairs) *
             static_cast<double>(again) / static_cast<double>(d.num_hidden_layers);
  }
  const bool trains_tower = count_trained(trained).tower > 0;
  if (policy.vision_tower && trains_tower && model.tower && !cached) {
    const auto rows = static_cast<double>(model.tower->num_features());
    const auto width = static_cast<double>(model.tower->hidden_size);
    const auto layers = static_cast<double>(model.tower->num_hidden_layers);
    const double matrices = static_cast<double>(count_parameters(model).tower) - (rows + 1) * width;
    flops += static_cast<double>(m.views) * rows * (2 * matrices + 4 * width * layers * rows);
  }
  return flops;
}

}  // namespace llava
