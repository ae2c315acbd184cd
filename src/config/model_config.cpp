#include "config/model_config.h"

#include <string_view>
#include <utility>

#include "base/error.h"

namespace llava {

namespace {

constexpr std::int64_t kMaxWidth = 1 << 20;
constexpr std::int64_t kMaxLayers = 1024;
constexpr std::int64_t kMaxVocabulary = 1 << 24;

constexpr std::pair<Activation, const char*> kActivations[] = {
    {Activation::kGelu, "gelu"},
    {Activation::kGeluTanh, "gelu_pytorch_tanh"},
    {Activation::kQuickGelu, "quick_gelu"},
    {Activation::kSilu, "silu"},
    {Activation::kRelu, "relu"},
};

/// Collects every inconsistency, so that one run shows them all.
class Problems {
 public:
  void range(const char* key, std::int64_t value, std::int64_t low, std::int64_t high) {
    if (value < low || value > high) add(fmt::format("{} = {} is not in [{}, {}]", key, value, low, high));
  }
  void require(bool condition, std::string text) {
    if (!condition) add(std::move(text));
  }
  bool empty() const { return text_.empty(); }
  const std::string& text() const { return text_; }

 private:
  void add(std::string text) { text_ += (text_.empty() ? "" : "; ") + std::move(text); }
  std::string text_;
};

void check_tower(const TowerConfig& t, Problems& problems) {
  problems.range("vision hidden_size", t.hidden_size, 1, kMaxWidth);
  problems.range("vision intermediate_size", t.intermediate_size, 1, kMaxWidth);
  problems.range("vision num_hidden_layers", t.num_hidden_layers, 1, kMaxLayers);
  problems.range("vision num_attention_heads", t.num_attention_heads, 1, t.hidden_size);
  problems.range("vision image_size", t.image_size, 1, 1 << 16);
  problems.range("vision patch_size", t.patch_size, 1, t.image_size);
  problems.range("vision input_size", t.input_size, t.patch_size, 1 << 16);
  problems.range("vision num_channels", t.num_channels, 3, 3);
  if (t.num_attention_heads > 0)
    problems.require(t.hidden_size % t.num_attention_heads == 0,
                     fmt::format("vision hidden_size {} is not a multiple of num_attention_heads {}",
                                 t.hidden_size, t.num_attention_heads));
  problems.require(!t.select_layers.empty(), "vision select layer list is empty");
  for (const std::int64_t layer : t.select_layers)
    problems.range("mm_vision_select_layer", layer, -t.num_hidden_layers - 1, t.num_hidden_layers);
}

void check_connector(const ModelConfig& m, Problems& problems) {
  const ConnectorConfig& c = m.connector;
  problems.range("connector input width", c.in_size, 1, kMaxWidth);
  problems.range("connector depth", c.depth, 1, 16);
  problems.range("mm_patch_merge", c.patch_merge, 1, 64);
  if (c.patch_merge > 0 && m.tower)
    problems.require(
        m.tower->patch_size > 0 && m.tower->grid() % c.patch_merge == 0,
        fmt::format("a {0}x{0} patch grid cannot be merged {1}x{1}", m.tower->grid(), c.patch_merge));
  problems.require(c.kind == ConnectorKind::kIdentity || c.hidden_size == m.decoder.hidden_size,
                   fmt::format("connector output width {} differs from the decoder's {}", c.hidden_size,
                               m.decoder.hidden_size));
  if (m.tower) {
    const auto width = m.tower->hidden_size * static_cast<std::int64_t>(m.tower->select_layers.size());
    problems.require(c.in_size == width,
                     fmt::format("connector input width {} differs from the tower's {}", c.in_size, width));
    problems.require(!c.class_token || m.tower->has_cls(),
                     "mm_projector_class_token needs a tower with a class token");
  }
}

void check_compressor(const ModelConfig& m, Problems& problems) {
  const CompressorConfig& c = *m.compressor;
  problems.range("compressor_size", c.size, 1, 64);
  problems.range("prefusion_layer_num", c.prefusion_layer_num, 0, kMaxLayers);
  problems.range("resolution_ratio", c.resolution_ratio, 1, 8);
  problems.require(m.connector.in_size % 8 == 0,
                   fmt::format("the compressor's 8 heads do not divide the width {}", m.connector.in_size));
  problems.require(m.connector.patch_merge == 1 && !m.connector.class_token && m.tower &&
                       m.tower->num_features() == m.tower->num_patches(),
                   "the compressor takes patches alone, not merged ones");
}

void check_decoder(const DecoderConfig& d, Problems& problems) {
  problems.range("vocab_size", d.vocab_size, 1, kMaxVocabulary);
  problems.range("hidden_size", d.hidden_size, 1, kMaxWidth);
  problems.range("intermediate_size", d.intermediate_size, 1, kMaxWidth * 4);
  problems.range("num_hidden_layers", d.num_hidden_layers, 1, kMaxLayers);
  problems.range("num_attention_heads", d.num_attention_heads, 1, 4096);
  problems.range("num_key_value_heads", d.num_key_value_heads, 1, 4096);
  problems.range("head_dim", d.head_dim, 2, 4096);
  problems.require(d.head_dim % 2 == 0, fmt::format("head_dim {} is odd", d.head_dim));
  problems.range("max_position_embeddings", d.max_position_embeddings, 1, std::int64_t{1} << 31);
  problems.range("sliding_window", d.sliding_window, 0, std::int64_t{1} << 31);
  if (d.num_key_value_heads > 0)
    problems.require(d.num_attention_heads % d.num_key_value_heads == 0,
                     fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}",
                                 d.num_attention_heads, d.num_key_value_heads));
  problems.require(d.rms_norm_eps > 0 && d.rms_norm_eps < 1,
                   fmt::format("rms_norm_eps {} is absurd", d.rms_norm_eps));
  problems.require(d.rope_theta > 0, fmt::format("rope_theta {} is not positive", d.rope_theta));
  problems.require(d.rope_scaling.factor >= 1.0,
                   fmt::format("rope_scaling.factor {} is below 1", d.rope_scaling.factor));
}

/// Parameters of a Linear.
std::int64_t linear(std::int64_t in, std::int64_t out, bool bias) { return in * out + (bias ? out : 0); }

std::int64_t count_tower(const TowerConfig& t) {
  const std::int64_t c = t.hidden_size;
  const std::int64_t trained_grid = t.image_size / t.patch_size;
  std::int64_t total =
      c * t.num_channels * t.patch_size * t.patch_size + (t.kind == TowerKind::kClip ? 0 : c);
  total += (trained_grid * trained_grid + (t.has_cls() ? 1 : 0)) * c + (t.has_cls() ? c : 0);
  std::int64_t block = 4 * linear(c, c, true) + linear(c, t.intermediate_size, true) +
                       linear(t.intermediate_size, c, true) + 4 * c;
  if (t.kind == TowerKind::kDinov2) block += 2 * c;
  total += t.num_hidden_layers * block + 2 * c;             // final norm
  return total + (t.kind == TowerKind::kClip ? 2 * c : 0);  // pre_layrnorm
}

std::int64_t count_connector(const ConnectorConfig& c) {
  if (c.kind == ConnectorKind::kIdentity) return 0;
  const auto mlp = [&](std::int64_t in) {
    return linear(in, c.hidden_size, c.bias) + (c.depth - 1) * linear(c.hidden_size, c.hidden_size, c.bias);
  };
  return mlp(c.merged_size()) + (c.input_norm ? 2 * c.merged_size() : 0) +
         (c.class_token ? mlp(c.in_size) : 0);
}

std::int64_t decoder_block(const DecoderConfig& d) {
  const std::int64_t q = d.num_attention_heads * d.head_dim, kv = d.num_key_value_heads * d.head_dim;
  return linear(d.hidden_size, q, d.attention_bias) + 2 * linear(d.hidden_size, kv, d.attention_bias) +
         linear(q, d.hidden_size, d.attention_out_bias) +
         2 * linear(d.hidden_size, d.intermediate_size, d.mlp_bias) +
         linear(d.intermediate_size, d.hidden_size, d.mlp_bias) + 2 * d.hidden_size;
}

std::int64_t count_decoder(const DecoderConfig& d) {
  const std::int64_t embedding = d.vocab_size * d.hidden_size;
  return d.num_hidden_layers * decoder_block(d) + d.hidden_size + embedding * (d.tie_word_embeddings ? 1 : 2);
}

std::int64_t count_compressor(const ModelConfig& m) {
  const std::int64_t c = m.connector.in_size;
  return 2 * m.compressor->num_tokens() * c + 4 * c + linear(c, 3 * c, true) + linear(c, c, true) +
         m.compressor->prefusion_layer_num * decoder_block(m.decoder);
}

}  // namespace

std::int64_t ModelConfig::num_image_tokens() const {
  if (!tower) return 0;
  const std::int64_t merged = tower->num_patches() / (connector.patch_merge * connector.patch_merge);
  const bool keeps_cls =
      tower->has_cls() && tower->select_feature == SelectFeature::kClsPatch && !connector.class_token;
  return merged + (connector.class_token || keeps_cls ? 1 : 0);
}

void ModelConfig::validate() const {
  Problems problems;
  if (tower) {
    check_tower(*tower, problems);
    check_connector(*this, problems);
    if (compressor) check_compressor(*this, problems);
  }
  check_decoder(decoder, problems);
  if (!problems.empty()) fail(ErrorKind::kFormat, "the model's config is not usable: {}", problems.text());
}

std::int64_t extend_context(DecoderConfig& decoder, std::int64_t media_tokens) {
  constexpr std::int64_t kText = 1000, kTrained = 4096;
  if (decoder.rope_scaling.type != RopeType::kDefault || decoder.max_position_embeddings > kTrained ||
      decoder.sliding_window > 0)
    return 1;
  const std::int64_t positions = decoder.max_position_embeddings;
  const std::int64_t factor = (media_tokens + kText + positions - 1) / positions;
  if (factor < 2) return 1;
  decoder.rope_scaling.type = RopeType::kLinear;
  decoder.rope_scaling.factor = static_cast<double>(factor);
  decoder.max_position_embeddings = positions * factor;
  return factor;
}

ParameterCount count_parameters(const ModelConfig& config) {
  ParameterCount count;
  if (config.tower) {
    count.tower = count_tower(*config.tower);
    count.connector = count_connector(config.connector);
    if (config.media.image_newline) count.connector += config.decoder.hidden_size;
    if (config.media.faster_token_stride > 0) count.connector += config.decoder.hidden_size;
    if (config.compressor) count.connector += count_compressor(config);
  }
  count.decoder = count_decoder(config.decoder);
  return count;
}

const char* to_string(TowerKind kind) {
  switch (kind) {
    case TowerKind::kClip:
      return "clip_vision_model";
    case TowerKind::kSiglip:
      return "siglip_vision_model";
    case TowerKind::kDinov2:
      return "dinov2";
  }
  return "";
}

const char* to_string(TileMerge merge) {
  switch (merge) {
    case TileMerge::kFlat:
      return "flat";
    case TileMerge::kSpatial:
      return "spatial";
    case TileMerge::kSpatialUnpad:
      return "spatial_unpad";
  }
  return "";
}

const char* to_string(Activation act) {
  for (const auto& [value, name] : kActivations)
    if (value == act) return name;
  return "";
}

Activation activation_from_string(const std::string& name) {
  for (const auto& [value, text] : kActivations)
    if (name == text) return value;
  if (name == "swish") return Activation::kSilu;
  if (name == "gelu_new") return Activation::kGeluTanh;
  fail(ErrorKind::kUnsupported,
       "activation \"{}\" is not supported (gelu, gelu_pytorch_tanh, quick_gelu, silu, relu)", name);
}

}  // namespace llava
