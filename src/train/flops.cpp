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

/// What the decoder's products count: the head's weights, those of all blocks, and attention's width over
/// all layers.
struct DecoderShape {
  DecoderShape(const DecoderConfig& d, const ParameterCount& all)
      : head(static_cast<double>(d.vocab_size) * static_cast<double>(d.hidden_size)),
        blocks(static_cast<double>(all.decoder) - head * (d.tie_word_embeddings ? 1 : 2)),
        width(static_cast<double>(d.num_attention_heads * d.head_dim * d.num_hidden_layers)) {}
  double head, blocks, width;
};

/// The same of the tower: rows of a view, weights that multiply (positions are added), and the operations
/// of a view's attention products forward.
struct TowerShape {
  TowerShape(const TowerConfig& t, const ParameterCount& all)
      : rows(static_cast<double>(t.num_features())),
        matrices(static_cast<double>(all.tower) - (rows + 1) * static_cast<double>(t.hidden_size)),
        attention(4 * static_cast<double>(t.hidden_size * t.num_hidden_layers) * rows * rows) {}
  double rows, matrices, attention;
};

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

double decoder_flops(const ModelConfig& model, const ParameterCount& all,
                     const std::vector<NamedParameter>& trained, const StepMetrics& m) {
  const DecoderShape decoder(model.decoder, all);
  const TrainedDecoder own = trained_decoder(model, trained);
  const auto tokens = static_cast<double>(m.tokens), supervised = static_cast<double>(m.supervised_tokens);
  return tokens * (4 * decoder.blocks + 2 * own.blocks) + supervised * decoder.head * (own.head ? 6 : 4) +
         12 * decoder.width * m.attended_pairs;
}

double vision_flops(const ModelConfig& model, const ParameterCount& all,
                    const std::vector<NamedParameter>& trained, const StepMetrics& m, bool cached) {
  const TrainedCounts own = count_trained(trained);
  const bool tower_trains = trains_tower(trained);
  const TowerConfig& t = *model.tower;
  const TowerShape tower(t, all);
  const auto views = static_cast<double>(m.views);
  // Without a trained tower no gradient passes the connector's first matrix.
  const double first = tower_trains ? 0
                                    : static_cast<double>(t.hidden_size) *
                                          static_cast<double>(t.select_layers.size()) *
                                          static_cast<double>(model.decoder.hidden_size);
  const double through = own.connector > 0 ? std::max(0.0, static_cast<double>(all.connector) - first) : 0;
  double flops =
      views * static_cast<double>(model.num_image_tokens()) *
      (2 * static_cast<double>(all.connector) + 2 * static_cast<double>(own.connector) + 2 * through);
  if (cached) return flops;
  const double passes = tower_trains ? 2 : 1;
  flops += views * tower.rows * (2 * passes * tower.matrices + 2 * static_cast<double>(own.tower));
  return flops + views * tower.attention * (tower_trains ? 3 : 1);
}

}  // namespace

double step_flops(const ModelConfig& model, const std::vector<NamedParameter>& trained,
                  const StepMetrics& metrics, Objective objective, bool cached) {
  const ParameterCount all = count_parameters(model);
  double flops = objective == Objective::kAnswerEmbedding ? 0 : decoder_flops(model, all, trained, metrics);
  if (model.tower && metrics.views > 0) flops += vision_flops(model, all, trained, metrics, cached);
  return flops;
}

double recomputed_flops(const ModelConfig& model, const std::vector<NamedParameter>& trained,
                        const StepMetrics& m, Objective objective, const GradientCheckpointing& policy,
                        bool cached) {
  if (policy.llm <= 0 && !policy.vision_tower) return 0;
  double flops = 0;
  const DecoderConfig& d = model.decoder;
  const ParameterCount all = count_parameters(model);
  if (policy.llm > 0 && objective != Objective::kAnswerEmbedding) {
    const std::int64_t again = (d.num_hidden_layers + policy.llm - 1) / policy.llm;
    const DecoderShape decoder(d, all);
    flops += (static_cast<double>(m.tokens) * 2 * decoder.blocks + 4 * decoder.width * m.attended_pairs) *
             static_cast<double>(again) / static_cast<double>(d.num_hidden_layers);
  }
  if (policy.vision_tower && trains_tower(trained) && model.tower && !cached) {
    const TowerShape tower(*model.tower, all);
    flops += static_cast<double>(m.views) * (2 * tower.rows * tower.matrices + tower.attention);
  }
  return flops;
}

}  // namespace llava
