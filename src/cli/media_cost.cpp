#include "cli/media_cost.h"

#include <algorithm>

namespace llava {

namespace {

constexpr std::int64_t kText = 1000;         // tokens
constexpr std::int64_t kFramesTogether = 8;  // as ImageStore encodes them

double tower_gflop(const TowerConfig& t) {
  const auto tokens = static_cast<double>(t.num_patches() + (t.has_cls() ? 1 : 0));
  const auto width = static_cast<double>(t.hidden_size);
  const double block = 2 * tokens * (4 * width * width + 2 * width * static_cast<double>(t.intermediate_size)) +
                       4 * tokens * tokens * width;
  return static_cast<double>(t.num_hidden_layers) * block / 1e9;
}

/// Parameters of one decoder block.
double block_weights(const DecoderConfig& d) {
  const std::int64_t q = d.num_attention_heads * d.head_dim, kv = d.num_key_value_heads * d.head_dim;
  return static_cast<double>(d.hidden_size * (2 * q + 2 * kv + 3 * d.intermediate_size));
}

double blocks_gflop(const DecoderConfig& d, std::int64_t blocks, std::int64_t tokens) {
  const auto n = static_cast<double>(tokens);
  const double attention = 2 * n * n * static_cast<double>(d.num_attention_heads * d.head_dim);  // causal: half
  return static_cast<double>(blocks) * (2 * block_weights(d) * n + attention) / 1e9;
}

/// Tokens that one frame's pre-fusion reads.
std::int64_t prefusion_tokens(const ModelConfig& m) {
  return m.compressor->num_views() * m.tower->num_patches() + m.compressor->num_tokens() + kText;
}

/// Values of a decoder block's intermediate results for so many tokens.
std::int64_t block_values(const DecoderConfig& d, std::int64_t tokens) {
  return tokens * (3 * d.intermediate_size + 6 * d.hidden_size);
}

}  // namespace

OrderedJson media_cost(const MediaPlan& plan, const ModelConfig& model) {
  const DecoderConfig& d = model.decoder;
  const std::int64_t bytes = model.torch_dtype == "float32" ? 4 : 2;
  const std::int64_t tokens = plan.token_count + kText;
  const std::int64_t kv = 2 * d.num_hidden_layers * d.num_key_value_heads * d.head_dim * bytes;
  OrderedJson cost = {{"vision_gflop", static_cast<double>(plan.num_tiles) * tower_gflop(*model.tower)}};
  std::int64_t working = block_values(d, tokens) * bytes;
  if (model.compressor) {
    const std::int64_t frames = plan.num_tiles / model.compressor->num_views(), each = prefusion_tokens(model);
    cost["prefusion_gflop"] =
        static_cast<double>(frames) * blocks_gflop(d, model.compressor->prefusion_layer_num, each);
    working = std::max(working, block_values(d, std::min(frames, kFramesTogether) * each) * bytes);
  }
  const std::int64_t weights = count_parameters(model).total() * bytes;
  const std::int64_t kept = plan.token_count * d.hidden_size * bytes;
  cost["prefill_gflop"] = blocks_gflop(d, d.num_hidden_layers, plan.token_count);
  cost["kv_bytes"] = kv * plan.token_count;
  cost["media_bytes"] = kept;
  cost["weights_bytes"] = weights;
  cost["total_bytes"] = weights + kv * tokens + kept + working;
  return cost;
}

}  // namespace llava
