#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "config/image_policy.h"
#include "config/model_config.h"
#include "formats/tensor_file.h"
#include "prompt/prompt.h"
#include "text/chat_format.h"
#include "text/tokenizer.h"

/// Everything a checkpoint folder (or GGUF file) says besides the numbers, resolved once. No torch here.
namespace llava {

enum class Layout {
  kHfText,
  kHfLlava,
  kOriginalLlava,
  kHfVision,
  kNano /* ours: tower + GGUF LLM + connector + adapter */,
  kGguf
};
const char* to_string(Layout layout);

/// One LoRA adapter to merge or train on: PEFT's config and its tensor file.
struct AdapterFiles {
  std::filesystem::path folder;
  std::vector<std::filesystem::path> files;
  std::int64_t r = 0;
  double lora_alpha = 0;
  bool use_rslora = false;
  bool use_dora = false;
  std::int64_t num_modules_to_save = 0;
  /// r and lora_alpha of single modules, by their names in the file; the first pattern wins (PEFT's rule).
  std::vector<std::pair<std::string, double>> rank_pattern = {}, alpha_pattern = {};
};

/// A weight file and how its tensor names become canonical ones.
struct WeightSource {
  std::filesystem::path path;
  enum class Part { kAll, kVisionTower, kConnector, kDecoder, kNonLora } part = Part::kAll;
  std::shared_ptr<const TensorFile> file;  ///< already opened while the folder was read; may be null
};

struct CheckpointInfo {
  std::filesystem::path folder;
  Layout layout = Layout::kHfText;
  std::string recipe;  ///< recipe table name, e.g. "llava-1.5"
  ModelConfig model;
  std::optional<ImagePolicy> image_policy;
  ImageTokenisation tokenisation = ImageTokenisation::kWholeString;
  std::shared_ptr<const Tokenizer> tokenizer;     ///< null where the folder has none (some goldens)
  std::shared_ptr<const ChatFormat> chat_format;  ///< null likewise
  std::vector<std::int64_t> stop_ids;  ///< generation_config.json's eos (single or list), else config's
  std::vector<WeightSource> weights;   ///< in the order of precedence, later ones override
  std::vector<WeightSource> delta_base;  ///< what `weights` are differences from, tensor by tensor (LLaVA v0, v1)
  std::vector<AdapterFiles> adapters;
  Json config, generation_config;  ///< as read
};

/// Where the parts that a folder only names are.
struct ReadOptions {
  std::optional<std::filesystem::path>
      base;  ///< --model-base: base model of an adapter or projector folder
  std::optional<std::filesystem::path> vision_tower;  ///< --vision-tower: folder used for mm_vision_tower
  bool delta = false;  ///< --delta: the folder's weights are differences from the base's (specification 2.5)
};

/// Reads a folder (HF layout old or new, original LLaVA, LoRA output with base, ours) or a GGUF file.
/// Dispatches on contents only. Installed names ("llava-nano") are looked up by find_model first. `base`:
/// the base model of an adapter or projector folder
/// (--model-base), else adapter_config.json's base_model_name_or_path if it is a folder here.
CheckpointInfo read_checkpoint(const std::filesystem::path& model, const ReadOptions& options);
CheckpointInfo read_checkpoint(const std::filesystem::path& model,
                               const std::optional<std::filesystem::path>& base = {});

/// A path that exists, or an installed model's name: $LLAVA_MODELS, <binary>/../share/llava/models,
/// <binary>/models, ~/.cache/llava/models. Error{kInput} lists where it looked and the installed names.
std::filesystem::path find_model(const std::string& name_or_path);

/// The folders find_model searches, in order, whether they exist or not.
std::vector<std::filesystem::path> model_folders();

}  // namespace llava
