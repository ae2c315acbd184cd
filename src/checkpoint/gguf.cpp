#include <cmath>
#include <string>

#include "base/error.h"
#include "checkpoint/parts.h"

namespace llava {

namespace {

/// Look-ups "<architecture>.<key>" and "tokenizer.ggml.<key>" in GGUF metadata.
class GgufKeys {
 public:
  explicit GgufKeys(const TensorFile& file) : metadata_(file.metadata()), what_(file.path().string()) {
    architecture_ = json_get<std::string>(metadata_, "general.architecture", what_);
  }
  const std::string& architecture() const { return architecture_; }
  const std::string& what() const { return what_; }
  std::string full(const std::string& key) const { return architecture_ + "." + key; }
  bool has(const std::string& key) const { return metadata_.contains(full(key)); }
  std::int64_t integer(const std::string& key) const {
    return json_get<std::int64_t>(metadata_, full(key).c_str(), what_);
  }
  std::int64_t integer_or(const std::string& key, std::int64_t fallback) const {
    return json_get_or<std::int64_t>(metadata_, full(key).c_str(), fallback, what_);
  }
  double number_or(const std::string& key, double fallback) const {
    return json_get_or<double>(metadata_, full(key).c_str(), fallback, what_);
  }
  std::string text_or(const std::string& key, const std::string& fallback) const {
    return json_get_or<std::string>(metadata_, full(key).c_str(), fallback, what_);
  }

 private:
  const Json& metadata_;
  std::string what_;
  std::string architecture_;
};

/// GGUF stores eps as float32; 1e-5 must come back as the double 1e-5 of config.json.
double widen(double stored) { return std::stod(fmt::format("{}", static_cast<float>(stored))); }

RopeScaling gguf_rope(const GgufKeys& keys, const TensorFile& file) {
  if (file.find("rope_freqs.weight") != nullptr)
    fail(ErrorKind::kUnsupported, "{}: rope_freqs.weight (frequency factors as a tensor) is not supported",
         keys.what());
  RopeScaling rope;
  const std::string type = keys.text_or("rope.scaling.type", "none");
  if (type == "none") return rope;
  if (type == "linear") {
    rope.type = RopeType::kLinear;
  } else if (type == "yarn") {
    rope.type = RopeType::kYarn;
  } else {
    fail(ErrorKind::kUnsupported, "{}: rope.scaling.type \"{}\" is not supported (none, linear, yarn)",
         keys.what(), type);
  }
  rope.factor = keys.number_or("rope.scaling.factor", 1.0);
  rope.original_max_position_embeddings = keys.integer_or("rope.scaling.original_context_length", 0);
  return rope;
}

template <class T>
std::vector<T> array_of(const Json& metadata, const char* key, const std::string& what) {
  return json_get_or<std::vector<T>>(metadata, key, {}, what);
}

std::optional<std::int64_t> token_id(const Json& metadata, const char* key, const std::string& what) {
  if (!metadata.contains(key)) return std::nullopt;
  return json_get<std::int64_t>(metadata, key, what);
}

std::string piece(const GgufVocabulary& vocabulary, const std::optional<std::int64_t>& id) {
  if (!id || *id < 0 || *id >= static_cast<std::int64_t>(vocabulary.tokens.size())) return {};
  return vocabulary.tokens[static_cast<std::size_t>(*id)];
}

Json gguf_template_variables(const GgufVocabulary& vocabulary) {
  Json variables = Json::object();
  const std::pair<const char*, const std::optional<std::int64_t>*> entries[] = {
      {"bos_token", &vocabulary.bos_id},
      {"eos_token", &vocabulary.eos_id},
      {"unk_token", &vocabulary.unk_id},
      {"pad_token", &vocabulary.pad_id}};
  for (const auto& [name, id] : entries)
    if (const std::string text = piece(vocabulary, *id); !text.empty()) variables[name] = text;
  return variables;
}

}  // namespace

DecoderConfig decoder_config_from_gguf(const TensorFile& file) {
  const GgufKeys keys(file);
  if (keys.architecture() != "llama" && keys.architecture() != "qwen2")
    fail(ErrorKind::kUnsupported, "{}: general.architecture \"{}\" is not supported (llama, qwen2)",
         keys.what(), keys.architecture());
  if (keys.integer_or("expert_count", 0) > 0)
    fail(ErrorKind::kUnsupported, "{}: expert_count = {} (mixture of experts) is not supported",
         keys.what(), keys.integer("expert_count"));
  DecoderConfig d;
  d.model_type = keys.architecture();
  d.hidden_size = keys.integer("embedding_length");
  d.intermediate_size = keys.integer("feed_forward_length");
  d.num_hidden_layers = keys.integer("block_count");
  d.num_attention_heads = keys.integer("attention.head_count");
  d.num_key_value_heads = keys.integer_or("attention.head_count_kv", d.num_attention_heads);
  if (d.num_attention_heads <= 0)
    fail(ErrorKind::kFormat, "{}: attention.head_count {} is not positive", keys.what(),
         d.num_attention_heads);
  d.head_dim = keys.integer_or("attention.key_length", d.hidden_size / d.num_attention_heads);
  if (keys.integer_or("rope.dimension_count", d.head_dim) != d.head_dim)
    fail(ErrorKind::kUnsupported,
         "{}: rope.dimension_count {} differs from the head size {} (partial rotary)", keys.what(),
         keys.integer("rope.dimension_count"), d.head_dim);
  d.max_position_embeddings = keys.integer_or("context_length", 2048);
  d.rms_norm_eps = widen(keys.number_or("attention.layer_norm_rms_epsilon", 1e-6));
  d.rope_theta = widen(keys.number_or("rope.freq_base", 10000.0));
  d.rope_scaling = gguf_rope(keys, file);
  d.sliding_window = keys.integer_or("attention.sliding_window", 0);
  d.attention_bias = file.find("blk.0.attn_q.bias") != nullptr;
  d.attention_out_bias = file.find("blk.0.attn_output.bias") != nullptr;
  d.mlp_bias = file.find("blk.0.ffn_up.bias") != nullptr;
  d.tie_word_embeddings = file.find("output.weight") == nullptr;
  const TensorView* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2)
    fail(ErrorKind::kFormat, "{}: no two-dimensional token_embd.weight", keys.what());
  d.vocab_size = embedding->shape[0];
  return d;
}

GgufVocabulary vocabulary_from_gguf(const TensorFile& file) {
  const Json& metadata = file.metadata();
  const std::string what = file.path().string();
  GgufVocabulary v;
  v.model = json_get<std::string>(metadata, "tokenizer.ggml.model", what);
  v.pre = json_get_or<std::string>(metadata, "tokenizer.ggml.pre", "default", what);
  v.tokens = array_of<std::string>(metadata, "tokenizer.ggml.tokens", what);
  v.scores = array_of<float>(metadata, "tokenizer.ggml.scores", what);
  v.token_types = array_of<std::int32_t>(metadata, "tokenizer.ggml.token_type", what);
  v.merges = array_of<std::string>(metadata, "tokenizer.ggml.merges", what);
  v.bos_id = token_id(metadata, "tokenizer.ggml.bos_token_id", what);
  v.eos_id = token_id(metadata, "tokenizer.ggml.eos_token_id", what);
  v.unk_id = token_id(metadata, "tokenizer.ggml.unknown_token_id", what);
  v.pad_id = token_id(metadata, "tokenizer.ggml.padding_token_id", what);
  // llama.cpp's defaults where the keys are absent: sentencepiece vocabularies add BOS, byte-level ones do
  // not.
  v.add_bos = json_get_or<bool>(metadata, "tokenizer.ggml.add_bos_token", v.model == "llama", what);
  v.add_eos = json_get_or<bool>(metadata, "tokenizer.ggml.add_eos_token", false, what);
  v.add_space_prefix = json_get_or<bool>(metadata, "tokenizer.ggml.add_space_prefix", true, what);
  return v;
}

void read_gguf_decoder(const std::filesystem::path& path, CheckpointInfo& info) {
  const std::string what = path.string();
  std::shared_ptr<const TensorFile> file = open_gguf(path);
  info.model.decoder = decoder_config_from_gguf(*file);
  const GgufVocabulary vocabulary = vocabulary_from_gguf(*file);
  info.tokenizer = with_context(what, [&] { return tokenizer_from_gguf(vocabulary); });
  const Json& metadata = file->metadata();
  if (metadata.contains("tokenizer.chat_template")) {
    auto source = json_get<std::string>(metadata, "tokenizer.chat_template", what);
    info.chat_format = with_context(what, [&] {
      return chat_format_from_jinja(std::move(source), gguf_template_variables(vocabulary));
    });
  }
  info.model.bos_token_id = vocabulary.bos_id.value_or(-1);
  info.model.pad_token_id = vocabulary.pad_id.value_or(-1);
  info.model.eos_token_ids.clear();
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (const auto id = token_id(metadata, key, what)) info.model.eos_token_ids.push_back(*id);
  info.stop_ids = info.model.eos_token_ids;
  info.weights.push_back({path, WeightSource::Part::kDecoder, file});
}

}  // namespace llava
