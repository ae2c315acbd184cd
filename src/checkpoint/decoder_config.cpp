#include <algorithm>
#include <optional>
#include <string>

#include "base/error.h"
#include "checkpoint/parts.h"

namespace llava {

namespace {

/// Defaults of HF's config classes; a published text_config often leaves them out.
struct ClassDefaults {
  const char* model_type;
  std::int64_t vocab_size, hidden_size, intermediate_size, num_key_value_heads, max_position_embeddings;
};
constexpr ClassDefaults kClassDefaults[] = {
    {"llama", 32000, 4096, 11008, 32, 2048},
    {"mistral", 32000, 4096, 14336, 8, 131072},
    {"qwen2", 151936, 4096, 22016, 32, 32768},
};

const ClassDefaults& class_defaults(const std::string& model_type, std::string_view what) {
  for (const ClassDefaults& entry : kClassDefaults)
    if (model_type == entry.model_type) return entry;
  fail(ErrorKind::kUnsupported, "{}: model_type \"{}\" is not supported (llama, mistral, qwen2)", what,
       model_type);
}

bool present(const Json& object, const char* key) {
  return object.contains(key) && !object.at(key).is_null();
}

std::optional<double> optional_number(const Json& object, const char* key, std::string_view what) {
  if (!present(object, key)) return std::nullopt;
  return json_get<double>(object, key, what);
}

RopeType rope_type_from_string(const std::string& name, std::string_view what) {
  constexpr std::pair<const char*, RopeType> kTypes[] = {{"default", RopeType::kDefault},
                                                         {"linear", RopeType::kLinear},
                                                         {"dynamic", RopeType::kDynamic},
                                                         {"yarn", RopeType::kYarn},
                                                         {"llama3", RopeType::kLlama3}};
  for (const auto& [text, type] : kTypes)
    if (name == text) return type;
  fail(ErrorKind::kUnsupported,
       "{}: rope_scaling type \"{}\" is not supported (default, linear, dynamic, yarn, llama3)", what,
       name);
}

RopeScaling rope_scaling_from_json(const Json& scaling, std::string_view what) {
  if (!scaling.is_object()) fail(ErrorKind::kFormat, "{}: rope_scaling must be an object or null", what);
  RopeScaling rope;
  const char* type_key = present(scaling, "rope_type") ? "rope_type" : "type";
  rope.type = rope_type_from_string(json_get_or<std::string>(scaling, type_key, "default", what), what);
  if (rope.type == RopeType::kDefault) return rope;
  rope.factor = json_get<double>(scaling, "factor", what);
  rope.low_freq_factor = json_get_or<double>(scaling, "low_freq_factor", rope.low_freq_factor, what);
  rope.high_freq_factor = json_get_or<double>(scaling, "high_freq_factor", rope.high_freq_factor, what);
  rope.beta_fast = json_get_or<double>(scaling, "beta_fast", rope.beta_fast, what);
  rope.beta_slow = json_get_or<double>(scaling, "beta_slow", rope.beta_slow, what);
  rope.attention_factor = optional_number(scaling, "attention_factor", what);
  rope.mscale = optional_number(scaling, "mscale", what);
  rope.mscale_all_dim = optional_number(scaling, "mscale_all_dim", what);
  rope.truncate = json_get_or<bool>(scaling, "truncate", true, what);
  rope.original_max_position_embeddings =
      json_get_or<std::int64_t>(scaling, "original_max_position_embeddings", 0, what);
  if (rope.original_max_position_embeddings < 0)
    fail(ErrorKind::kFormat, "{}: original_max_position_embeddings {} is negative", what,
         rope.original_max_position_embeddings);
  return rope;
}

/// rope_theta and rope_scaling; transformers 5 writes both into rope_parameters.
void read_rope(const Json& config, DecoderConfig& d, std::string_view what) {
  d.rope_theta = json_get_or<double>(config, "rope_theta", 10000.0, what);
  if (present(config, "rope_parameters")) {
    const Json& parameters = config.at("rope_parameters");
    if (!parameters.is_object()) fail(ErrorKind::kFormat, "{}: rope_parameters must be an object", what);
    d.rope_theta = json_get_or<double>(parameters, "rope_theta", d.rope_theta, what);
    d.rope_scaling = rope_scaling_from_json(parameters, what);
  } else if (present(config, "rope_scaling")) {
    d.rope_scaling = rope_scaling_from_json(config.at("rope_scaling"), what);
  }
  if (json_get_or<double>(config, "partial_rotary_factor", 1.0, what) != 1.0)
    fail(ErrorKind::kUnsupported, "{}: partial_rotary_factor {} is not supported (1.0)", what,
         config.at("partial_rotary_factor").dump());
}

/// First layer of a "full … full, sliding … sliding" list; -1: no layer slides.
std::int64_t first_sliding(const Json& layer_types, std::string_view what) {
  std::int64_t first = -1;
  if (!layer_types.is_array()) fail(ErrorKind::kFormat, "{}: layer_types must be a list", what);
  for (std::size_t i = 0; i < layer_types.size(); ++i) {
    const std::string type =
        layer_types[i].is_string() ? layer_types[i].get<std::string>() : layer_types[i].dump();
    if (type != "full_attention" && type != "sliding_attention")
      fail(ErrorKind::kUnsupported, "{}: layer_types[{}] = \"{}\" is not supported", what, i, type);
    if (type == "sliding_attention" && first < 0) first = static_cast<std::int64_t>(i);
    if (type == "full_attention" && first >= 0)
      fail(ErrorKind::kUnsupported,
           "{}: layer_types alternates between full and sliding attention, which is not supported", what);
  }
  return first;
}

void read_sliding_window(const Json& config, DecoderConfig& d, std::string_view what) {
  if (d.model_type == "mistral") {
    // The class default is 4096 where the key is absent; null means none.
    d.sliding_window = config.contains("sliding_window")
                           ? json_get_or<std::int64_t>(config, "sliding_window", 0, what)
                           : 4096;
    return;
  }
  if (d.model_type != "qwen2" || !json_get_or<bool>(config, "use_sliding_window", false, what)) return;
  d.sliding_window = json_get_or<std::int64_t>(config, "sliding_window", 4096, what);
  d.first_sliding_layer = json_get_or<std::int64_t>(config, "max_window_layers", 28, what);
  if (present(config, "layer_types")) {
    d.first_sliding_layer = first_sliding(config.at("layer_types"), what);
    if (d.first_sliding_layer < 0) d.sliding_window = d.first_sliding_layer = 0;
  }
  if (d.first_sliding_layer < 0)
    fail(ErrorKind::kFormat, "{}: max_window_layers {} is negative", what, d.first_sliding_layer);
}

}  // namespace

void reject_unsupported_keys(const Json& config, std::string_view what) {
  if (!config.is_object()) fail(ErrorKind::kFormat, "{}: expected a JSON object", what);
  if (present(config, "quantization_config"))
    fail(ErrorKind::kUnsupported, "{}: quantization_config {} is not supported", what,
         config.at("quantization_config").dump().substr(0, 120));
  for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"})
    if (json_get_or<std::int64_t>(config, key, 0, what) > 0)
      fail(ErrorKind::kUnsupported, "{}: {} = {} (mixture of experts) is not supported", what, key,
           config.at(key).dump());
  for (const char* key : {"use_qk_norm", "qk_norm", "qk_layernorm", "alibi"})
    if (json_get_or<bool>(config, key, false, what))
      fail(ErrorKind::kUnsupported, "{}: {} = true is not supported", what, key);
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (present(config, key))
      fail(ErrorKind::kUnsupported, "{}: {} = {} is not supported", what, key, config.at(key).dump());
}

DecoderConfig decoder_config_from_json(const Json& config, const std::string& model_type,
                                       std::string_view what) {
  reject_unsupported_keys(config, what);
  const ClassDefaults& defaults = class_defaults(model_type, what);
  DecoderConfig d;
  d.model_type = model_type;
  d.vocab_size = json_get_or<std::int64_t>(config, "vocab_size", defaults.vocab_size, what);
  d.hidden_size = json_get_or<std::int64_t>(config, "hidden_size", defaults.hidden_size, what);
  d.intermediate_size =
      json_get_or<std::int64_t>(config, "intermediate_size", defaults.intermediate_size, what);
  d.num_hidden_layers = json_get_or<std::int64_t>(config, "num_hidden_layers", 32, what);
  d.num_attention_heads = json_get_or<std::int64_t>(config, "num_attention_heads", 32, what);
  // null means "as many as heads"; Llama's class default is the same, Mistral's is 8.
  const bool own_default = !config.contains("num_key_value_heads") && model_type != "llama";
  d.num_key_value_heads =
      json_get_or<std::int64_t>(config, "num_key_value_heads",
                                own_default ? defaults.num_key_value_heads : d.num_attention_heads, what);
  if (d.num_attention_heads <= 0)
    fail(ErrorKind::kFormat, "{}: num_attention_heads {} is not positive", what, d.num_attention_heads);
  d.head_dim = json_get_or<std::int64_t>(config, "head_dim", 0, what);
  if (d.head_dim == 0 && d.hidden_size % d.num_attention_heads != 0)
    fail(ErrorKind::kFormat, "{}: hidden_size {} is not a multiple of num_attention_heads {}", what,
         d.hidden_size, d.num_attention_heads);
  if (d.head_dim == 0) d.head_dim = d.hidden_size / d.num_attention_heads;
  d.max_position_embeddings =
      json_get_or<std::int64_t>(config, "max_position_embeddings", defaults.max_position_embeddings, what);
  d.rms_norm_eps = json_get_or<double>(config, "rms_norm_eps", 1e-6, what);
  d.hidden_act = with_context(what, [&] {
    return activation_from_string(json_get_or<std::string>(config, "hidden_act", "silu", what));
  });
  d.attention_bias = model_type == "qwen2";
  if (model_type == "llama") {
    d.attention_bias = d.attention_out_bias = json_get_or<bool>(config, "attention_bias", false, what);
    d.mlp_bias = json_get_or<bool>(config, "mlp_bias", false, what);
  }
  d.tie_word_embeddings = json_get_or<bool>(config, "tie_word_embeddings", false, what);
  read_rope(config, d, what);
  read_sliding_window(config, d, what);
  return d;
}

std::vector<std::int64_t> id_list(const Json& config, const char* key, std::string_view what) {
  if (!present(config, key)) return {};
  const Json& value = config.at(key);
  if (!value.is_array()) return {json_get<std::int64_t>(config, key, what)};
  std::vector<std::int64_t> ids;
  for (const Json& id : value) {
    if (!id.is_number_integer())
      fail(ErrorKind::kFormat, "{}: \"{}\" holds {}, not an id", what, key, id.dump());
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

}  // namespace llava
