#include "train/flops.h"

#include <torch/torch.h>

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

double step_flops(const ModelConfig& model, const std::vector<NamedParameter>& trained,
                  const StepMetrics& metrics, bool cached) {
  const ParameterCount all = count_parameters(model);
  const TrainedCounts own = count_trained(trained);
  const double head =
      static_cast<double>(model.decoder.vocab_size) * static_cast<double>(model.decoder.hidden_size);
  const double blocks =
      static_cast<double>(all.decoder) - head * (model.decoder.tie_word_embeddings ? 1 : 2);
  const auto tokens = static_cast<double>(metrics.tokens), images = static_cast<double>(metrics.images);
  double flops = tokens * (4 * blocks + 2 * static_cast<double>(own.decoder + own.lora));
  flops += static_cast<double>(metrics.supervised_tokens) * 4 * head;
  if (!model.tower) return flops;
  const auto rows = static_cast<double>(model.tower->num_features());
  flops += images * static_cast<double>(model.num_image_tokens()) *
           static_cast<double>(2 * all.connector + 4 * own.connector);
  if (!cached) flops += images * rows * static_cast<double>(2 * all.tower + 4 * own.tower);
  return flops;
}

}  // namespace llava
