#include "model/connector.h"

#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "model/ops.h"

namespace llava {
namespace {

void build_mlp(std::vector<Linear>& layers, Builder& builder, const std::string& name,
               const ConnectorConfig& c, std::int64_t in, bool numbered) {
  layers.resize(static_cast<std::size_t>(c.depth));  // sized once: linears must not move after registration
  for (std::int64_t i = 0; i < c.depth; ++i)
    builder.linear(layers[static_cast<std::size_t>(i)], numbered ? fmt::format("{}.{}", name, 2 * i) : name,
                   i == 0 ? in : c.hidden_size, c.hidden_size, c.bias);
}

}  // namespace

Connector::Connector(const ConnectorConfig& config, Builder& builder) : config_(config) {
  if (config.input_norm) norm_.build(builder, "mm_projector.norm", config.merged_size(), config.input_norm_eps);
  if (config.kind == ConnectorKind::kIdentity) return;
  const bool numbered = config.kind == ConnectorKind::kMlp;
  build_mlp(layers_, builder, "mm_projector", config, config.merged_size(), numbered);
  if (config.class_token)
    build_mlp(class_token_, builder, "mm_projector.class_token", config, config.in_size, true);
}

at::Tensor Connector::forward(const at::Tensor& features) const {
  LLAVA_ASSERT(features.dim() == 3 && features.size(2) == config_.in_size, "features are [M,P,C]");
  const at::Tensor patches = config_.class_token ? features.slice(1, 1) : features;
  at::Tensor merged = config_.patch_merge > 1 ? merge_patches(patches) : patches;
  if (config_.input_norm) merged = norm_(merged);
  const at::Tensor media = run(layers_, merged);
  if (!config_.class_token) return media;
  return at::cat({run(class_token_, features.slice(1, 0, 1)), media}, 1);
}

at::Tensor Connector::merge_patches(const at::Tensor& patches) const {
  const std::int64_t k = config_.patch_merge, tiles = patches.size(0), width = patches.size(2);
  const auto grid = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(patches.size(1)))));
  if (grid * grid != patches.size(1) || grid % k != 0)
    fail(ErrorKind::kInput,
         "{} patches cannot be merged {} x {}: they are not a square grid divisible by {}", patches.size(1),
         k, k, k);
  return patches.reshape({tiles, grid / k, k, grid / k, k, width})
      .permute({0, 1, 3, 2, 4, 5})  // [M,g/k,g/k,k,k,C]
      .reshape({tiles, grid / k * (grid / k), k * k * width});
}

at::Tensor Connector::run(const std::vector<Linear>& layers, at::Tensor x) const {
  for (std::size_t i = 0; i < layers.size(); ++i) x = layers[i](i == 0 ? x : activate(x, config_.act));
  return x;
}

}  // namespace llava
