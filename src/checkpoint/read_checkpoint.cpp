#include <string>

#include "base/error.h"
#include "checkpoint/parts.h"
#include "recipe/recipe.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr int kMaxBases = 4;  // an adapter on an adapter on … ends somewhere

CheckpointInfo read_any(const fs::path& model, const ReadOptions& options, int depth);

/// The base model's path: the option, else what the file names, tried as it is, from the folder, and as a
/// sibling.
fs::path resolve_base(const fs::path& folder, const std::string& named, const ReadOptions& options,
                      const std::string& what) {
  if (options.base) return *options.base;
  const std::string hint = "give the base model's folder as --model-base";
  std::error_code error;
  if (named.empty()) throw Error(ErrorKind::kInput, what + ": no base model is named", hint);
  if (fs::exists(named, error)) return named;
  return resolve_part(named, {folder}, what + ": base model", hint);
}

CheckpointInfo read_base(const fs::path& base, const ReadOptions& options, int depth) {
  if (depth >= kMaxBases)
    fail(ErrorKind::kFormat, "{}: more than {} base models behind one another", base.string(), kMaxBases);
  ReadOptions rest = options;
  rest.base.reset();
  rest.delta = false;
  return read_any(base, rest, depth + 1);
}

bool is_file(const fs::path& path) { return fs::is_regular_file(path); }

/// A LoRA folder: PEFT's files, with or without the original LLaVA's config.json and
/// non_lora_trainables.bin.
CheckpointInfo read_lora_folder(const fs::path& folder, const ReadOptions& options, int depth) {
  const fs::path adapter_path = folder / "adapter_config.json";
  const Json adapter_config = read_json_file(adapter_path);
  const std::string what = adapter_path.string();
  const AdapterFiles adapter = read_adapter(folder);
  const auto named = json_get_or<std::string>(adapter_config, "base_model_name_or_path", "", what);
  const CheckpointInfo base = read_base(resolve_base(folder, named, options, what), options, depth);
  CheckpointInfo info = base;
  if (is_file(folder / "config.json")) {
    const Json config = read_json_file(folder / "config.json");
    if (is_original_llava(config)) info = read_original_llava(folder, config, options, &base);
  } else if (is_file(folder / "non_lora_trainables.bin")) {
    add_weight_file(info, folder / "non_lora_trainables.bin", WeightSource::Part::kNonLora);
  }
  info.folder = folder;
  info.adapters.push_back(adapter);
  return info;
}

/// An original LLaVA folder; a projector-only one takes the language model from its base.
CheckpointInfo read_original_folder(const fs::path& folder, const Json& config, const ReadOptions& options,
                                    int depth) {
  if (!options.delta && (has_weights(folder) || !is_file(folder / "mm_projector.bin")))
    return read_original_llava(folder, config, options, nullptr);
  const std::string what = (folder / "config.json").string();
  const auto named = json_get_or<std::string>(config, "_name_or_path", "", what);
  const CheckpointInfo base = read_base(resolve_base(folder, named, options, what), options, depth);
  return read_original_llava(folder, config, options, &base);
}

fs::path only_gguf(const fs::path& folder) {
  fs::path found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".gguf") continue;
    if (!found.empty()) return {};
    found = entry.path();
  }
  return found;
}

CheckpointInfo read_folder(const fs::path& folder, const ReadOptions& options, int depth) {
  const fs::path config_path = folder / "config.json";
  const bool nano =
      is_file(config_path) && json_get_or<std::string>(read_json_file(config_path), "model_type", "",
                                                       config_path.string()) == "llava_cpp";
  if (!nano && is_file(folder / "adapter_config.json")) return read_lora_folder(folder, options, depth);
  if (!is_file(config_path)) {
    if (const fs::path gguf = only_gguf(folder); !gguf.empty()) return read_gguf_file(gguf);
    throw Error(
        ErrorKind::kInput,
        fmt::format("{}: no config.json, adapter_config.json or single .gguf file", folder.string()),
        "--model takes a checkpoint folder or a GGUF file");
  }
  const Json config = read_json_file(config_path);
  const std::string what = config_path.string();
  const auto type = json_get_or<std::string>(config, "model_type", "", what);
  if (nano) return read_nano(folder, config, options);
  if (type == "llava" && config.contains("text_config")) return read_hf_llava(folder, config);
  if (is_original_llava(config)) return read_original_folder(folder, config, options, depth);
  for (const char* llava : {"llava", "vipllava", "llava_next", "llava_next_video", "llava_onevision"})
    if (type == llava) return read_hf_llava(folder, config);
  for (const char* vision : {"clip", "clip_vision_model", "siglip", "siglip_vision_model", "dinov2"})
    if (type == vision) return read_hf_vision(folder, config);
  for (const char* text : {"llama", "mistral", "qwen2"})
    if (type == text) return read_hf_text(folder, config);
  if (type.empty()) fail(ErrorKind::kFormat, "{}: key \"model_type\" is missing", what);
  fail(ErrorKind::kUnsupported,
       "{}: model_type \"{}\" is not supported (llava, vipllava, llava_next, llava_next_video, "
       "llava_onevision, llama, mistral, qwen2, clip, siglip, dinov2)",
       what, type);
}

CheckpointInfo read_any(const fs::path& model, const ReadOptions& options, int depth) {
  std::error_code error;
  if (fs::is_directory(model, error)) return read_folder(model, options, depth);
  if (!fs::exists(model, error)) fail(ErrorKind::kInput, "{}: no such file or folder", model.string());
  return read_gguf_file(model);
}

}  // namespace

const char* to_string(Layout layout) {
  switch (layout) {
    case Layout::kHfText:
      return "hf-text";
    case Layout::kHfLlava:
      return "hf-llava";
    case Layout::kOriginalLlava:
      return "original-llava";
    case Layout::kHfVision:
      return "hf-vision";
    case Layout::kNano:
      return "llava-cpp";
    case Layout::kGguf:
      return "gguf";
  }
  return "";
}

CheckpointInfo read_checkpoint(const fs::path& model, const ReadOptions& options) {
  CheckpointInfo info = read_any(model, options, 0);
  if (options.delta && info.delta_base.empty())
    fail(ErrorKind::kUsage, "{}: --delta is for a folder of the original LLaVA's weights beside --model-base",
         model.string());
  info.model.validate();
  info.recipe = detect_recipe(info.model);
  return info;
}

CheckpointInfo read_checkpoint(const fs::path& model, const std::optional<fs::path>& base) {
  return read_checkpoint(model, ReadOptions{base, {}, false});
}

}  // namespace llava
