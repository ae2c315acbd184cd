#include "base/error.h"
#include "base/fields.h"
#include "base/files.h"
#include "checkpoint/parts.h"
#include "formats/sharded.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

/// Keys of adapter_config.json that change the maths of W + scale * B A in ways we do not have.
void reject_unsupported_peft(const Json& config, const std::string& what) {
  const auto type = json_get_or<std::string>(config, "peft_type", "LORA", what);
  if (type != "LORA")
    fail(ErrorKind::kUnsupported, "{}: peft_type \"{}\" is not supported (LORA)", what, type);
  for (const char* key : {"use_qalora", "use_bdlora", "fan_in_fan_out", "lora_bias"})
    if (json_get_or<bool>(config, key, false, what))
      fail(ErrorKind::kUnsupported, "{}: {} = true is not supported", what, key);
  const auto bias = json_get_or<std::string>(config, "bias", "none", what);
  if (bias != "none")
    fail(ErrorKind::kUnsupported, "{}: bias = \"{}\" is not supported (none)", what, bias);
}

}  // namespace

namespace {

std::vector<std::pair<std::string, double>> module_numbers(const OrderedJson& config, const char* key,
                                                           const std::string& what) {
  std::vector<std::pair<std::string, double>> patterns;
  if (!config.contains(key) || !config.at(key).is_object()) return patterns;
  for (const auto& [pattern, number] : config.at(key).items()) {
    if (!number.is_number()) fail(ErrorKind::kFormat, "{}: {} \"{}\" is not a number", what, key, pattern);
    patterns.emplace_back(pattern, number.get<double>());
  }
  return patterns;
}

}  // namespace

bool has_weights(const fs::path& folder) {
  for (const char* stem : {"model.safetensors", "pytorch_model.bin"})
    if (fs::is_regular_file(folder / stem) ||
        fs::is_regular_file(folder / (std::string(stem) + ".index.json")))
      return true;
  return false;
}

void add_folder_weights(CheckpointInfo& info, const fs::path& folder, WeightSource::Part part) {
  if (!has_weights(folder)) return;
  for (std::shared_ptr<const TensorFile>& file : open_sharded(folder)) {
    fs::path path = file->path();
    info.weights.push_back({std::move(path), part, std::move(file)});
  }
}

void add_weight_file(CheckpointInfo& info, const fs::path& file, WeightSource::Part part) {
  info.weights.push_back({file, part, std::shared_ptr<const TensorFile>(open_tensor_file(file))});
}

const TensorView* find_suffix(const CheckpointInfo& info, std::string_view suffix) {
  const TensorView* found = nullptr;
  for (const WeightSource& source : info.weights) {
    if (!source.file) continue;
    for (const TensorView& tensor : source.file->tensors())
      if (tensor.name.ends_with(suffix)) found = &tensor;
  }
  return found;
}

bool has_tensor_containing(const CheckpointInfo& info, std::string_view text) {
  for (const WeightSource& source : info.weights) {
    if (!source.file) continue;
    for (const TensorView& tensor : source.file->tensors())
      if (tensor.name.find(text) != std::string::npos) return true;
  }
  return false;
}

void apply_tensor_facts(CheckpointInfo& info) {
  const TensorView* embedding = find_suffix(info, "embed_tokens.weight");
  if (embedding == nullptr) embedding = find_suffix(info, "token_embd.weight");
  if (embedding == nullptr) return;  // the loader lists it as missing, with everything else
  if (embedding->shape.size() == 2) info.model.decoder.vocab_size = embedding->shape[0];
  // A head that is not stored is the embedding, whatever config.json says (re-saves lose the flag).
  if (find_suffix(info, "lm_head.weight") == nullptr && find_suffix(info, "output.weight") == nullptr)
    info.model.decoder.tie_word_embeddings = true;
  switch (embedding->dtype) {
    case DType::kBF16:
      info.model.torch_dtype = "bfloat16";
      break;
    case DType::kF16:
      info.model.torch_dtype = "float16";
      break;
    default:
      info.model.torch_dtype = "float32";
  }
}

AdapterFiles read_adapter(const fs::path& folder) {
  const fs::path config_path = folder / "adapter_config.json";
  const Json config = read_json_file(config_path);
  const std::string what = config_path.string();
  reject_unsupported_peft(config, what);
  AdapterFiles adapter;
  adapter.folder = folder;
  adapter.r = json_get<std::int64_t>(config, "r", what);
  if (adapter.r <= 0 || adapter.r > (1 << 16))
    fail(ErrorKind::kFormat, "{}: r = {} is absurd", what, adapter.r);
  adapter.lora_alpha = json_get_or<double>(config, "lora_alpha", static_cast<double>(adapter.r), what);
  adapter.use_rslora = json_get_or<bool>(config, "use_rslora", false, what);
  adapter.use_dora = json_get_or<bool>(config, "use_dora", false, what);
  if (config.contains("modules_to_save") && config.at("modules_to_save").is_array())
    adapter.num_modules_to_save = static_cast<std::int64_t>(config.at("modules_to_save").size());
  const OrderedJson ordered = parse_ordered_json(read_file(config_path), what);  // the first pattern wins
  adapter.rank_pattern = module_numbers(ordered, "rank_pattern", what);
  adapter.alpha_pattern = module_numbers(ordered, "alpha_pattern", what);
  for (const char* name : {"adapter_model.safetensors", "adapter_model.bin"})
    if (adapter.files.empty() && fs::is_regular_file(folder / name)) adapter.files.push_back(folder / name);
  if (adapter.files.empty())
    throw Error(ErrorKind::kInput,
                fmt::format("{}: no adapter_model.safetensors or adapter_model.bin beside it", what),
                "the adapter's weights are missing; copy them into the folder");
  return adapter;
}

}  // namespace llava
