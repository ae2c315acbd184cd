#include <algorithm>
#include <string>

#include "base/error.h"
#include "checkpoint/parts.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr const char* kTowerHint = "give the vision tower's folder as --vision-tower";

/// Which decoder class an original config.json means: by architectures first, since model_type was edited
/// in re-uploads.
std::string decoder_type(const Json& config, std::string_view what) {
  std::string name = json_get_or<std::string>(config, "model_type", "", what);
  if (config.contains("architectures") && config.at("architectures").is_array() &&
      !config.at("architectures").empty() && config.at("architectures")[0].is_string())
    name = config.at("architectures")[0].get<std::string>();
  constexpr std::pair<const char*, const char*> kTypes[] = {{"LlavaLlamaForCausalLM", "llama"},
                                                            {"LlavaMistralForCausalLM", "mistral"},
                                                            {"LlavaQwenForCausalLM", "qwen2"},
                                                            {"LlavaMiniLlamaForCausalLM", "llama"},
                                                            {"llava_mini_llama", "llama"},
                                                            {"LlamaForCausalLM", "llama"},
                                                            {"MistralForCausalLM", "mistral"},
                                                            {"Qwen2ForCausalLM", "qwen2"},
                                                            {"llava_llama", "llama"},
                                                            {"llava_mistral", "mistral"},
                                                            {"llava_qwen", "qwen2"},
                                                            {"llava", "llama"},
                                                            {"llama", "llama"},
                                                            {"mistral", "mistral"},
                                                            {"qwen2", "qwen2"}};
  for (const auto& [key, type] : kTypes)
    if (name == key) return type;
  fail(ErrorKind::kUnsupported,
       "{}: architecture \"{}\" is not supported (LlavaLlama, LlavaMistral, LlavaQwen, LlavaMiniLlama)", what, name);
}

/// The conversation format the checkpoint was trained with, from what config.json says (spec 3.2).
std::string format_name(const Json& config, const DecoderConfig& decoder, std::string_view what) {
  for (const char* key : {"chat_format", "conv_version", "version"})
    if (auto name = json_get_or<std::string>(config, key, "", what); !name.empty()) return name;
  if (decoder.model_type == "mistral") return "mistral_instruct";
  if (decoder.model_type == "qwen2") return "qwen_1_5";
  if (decoder.vocab_size >= 128256) return "llava_llama_3";
  if (decoder.vocab_size >= 64000 && decoder.hidden_size == 7168) return "chatml_direct";
  return "vicuna_v1";
}

void read_mm_connector(const Json& config, ModelConfig& model, std::string_view what) {
  ConnectorConfig& c = model.connector;
  set_projector_type(c, json_get_or<std::string>(config, "mm_projector_type", "linear", what), what);
  const auto width =
      model.tower->hidden_size * static_cast<std::int64_t>(model.tower->select_layers.size());
  c.in_size = json_get_or<std::int64_t>(config, "mm_hidden_size", width, what);
  c.hidden_size = model.decoder.hidden_size;
  if (c.in_size != width)
    fail(ErrorKind::kFormat, "{}: mm_hidden_size {} differs from the vision tower's width {}", what,
         c.in_size, width);
}

void read_mm_selection(const Json& config, TowerConfig& tower, std::int64_t embedded_layers,
                       std::string_view what) {
  tower.select_layers = layer_list(config, "mm_vision_select_layer", -2, what);
  const auto feature = json_get_or<std::string>(config, "mm_vision_select_feature", "patch", what);
  if (feature != "patch" && feature != "cls_patch")
    fail(ErrorKind::kUnsupported, "{}: mm_vision_select_feature \"{}\" is not supported (patch, cls_patch)",
         what, feature);
  tower.select_feature = feature == "patch" ? SelectFeature::kPatch : SelectFeature::kClsPatch;
  if (tower.kind != TowerKind::kSiglip) return;
  // The original SigLIP class deletes the last block and takes the last hidden state, whatever the config
  // says.
  if (embedded_layers > 0 && embedded_layers < tower.num_hidden_layers)
    tower.num_hidden_layers = embedded_layers;
  tower.select_layers = {embedded_layers > 0 ? -1 : -2};
}

/// Config, policy and weights of the tower: inside the checkpoint if its tensors are, else from
/// mm_vision_tower's folder.
void read_mm_tower(const Json& config, const std::vector<fs::path>& roots, const ReadOptions& options,
                   CheckpointInfo& info, const std::string& what) {
  const std::int64_t embedded = count_embedded_layers(info);
  const bool have_tower =
      embedded > 0 || std::any_of(info.weights.begin(), info.weights.end(), [](const WeightSource& s) {
        return s.part == WeightSource::Part::kVisionTower;
      });
  auto name = json_get_or<std::string>(config, "mm_vision_tower", "", what);
  if (name.empty()) name = json_get_or<std::string>(config, "vision_tower", "", what);
  std::optional<TowerFolder> folder;
  if (options.vision_tower) {
    folder = read_tower_folder(*options.vision_tower);
  } else if (!name.empty()) {
    try {
      folder = read_tower_folder(resolve_part(name, roots, what + ": mm_vision_tower", kTowerHint));
    } catch (const Error& error) {
      if (embedded == 0 || error.kind() != ErrorKind::kInput) throw;
    }
  }
  if (!folder && embedded == 0)
    throw Error(ErrorKind::kInput, fmt::format("{}: no mm_vision_tower, and no tower tensors inside", what),
                kTowerHint);
  info.model.tower = folder ? folder->config : tower_config_from_tensors(info, what);
  info.image_policy = folder ? folder->policy : default_image_policy(*info.model.tower);
  read_mm_media(config, info.model, *info.image_policy, what);
  match_input_size(*info.model.tower, *info.image_policy, what);
  read_mm_selection(config, *info.model.tower, embedded, what);
  if (folder && !have_tower) {
    std::vector<WeightSource> own = std::move(info.weights);
    info.weights.clear();
    add_folder_weights(info, folder->folder, WeightSource::Part::kVisionTower);
    info.weights.insert(info.weights.end(), own.begin(), own.end());
  }
}

void add_original_weights(const fs::path& folder, CheckpointInfo& info) {
  add_folder_weights(info, folder, WeightSource::Part::kAll);
  const fs::path projector = folder / "mm_projector.bin";
  // Beside full weights the projector's file is a copy; beside a base's weights it is the one that counts.
  const bool stored = has_weights(folder) && has_tensor_containing(info, "mm_projector.");
  if (fs::is_regular_file(projector) && !stored)
    add_weight_file(info, projector, WeightSource::Part::kConnector);
  const fs::path trained = folder / "non_lora_trainables.bin";
  if (fs::is_regular_file(trained)) add_weight_file(info, trained, WeightSource::Part::kNonLora);
}

}  // namespace

bool is_original_llava(const Json& config) {
  if (config.contains("mm_vision_tower") || config.contains("mm_projector_type")) return true;
  if (!config.contains("architectures") || !config.at("architectures").is_array()) return false;
  for (const Json& name : config.at("architectures"))
    if (name.is_string() && name.get<std::string>().starts_with("Llava") &&
        name.get<std::string>().ends_with("ForCausalLM"))
      return true;
  return false;
}

CheckpointInfo read_original_llava(const fs::path& folder, const Json& config, const ReadOptions& options,
                                   const CheckpointInfo* base) {
  const std::string what = (folder / "config.json").string();
  CheckpointInfo info;
  info.folder = folder;
  info.layout = Layout::kOriginalLlava;
  info.config = config;
  info.tokenisation = ImageTokenisation::kChunks;
  reject_unsupported_keys(config, what);
  const std::string type = decoder_type(config, what);
  Json text = config;
  if (type == "qwen2") text.erase("rope_scaling");  // the original LlavaQwen ignores it
  info.model.decoder = decoder_config_from_json(text, type, what);
  read_token_ids(config, type, info.model, what);
  info.model.image_token_id = -200;
  std::vector<fs::path> roots = {folder};
  if (base != nullptr && options.delta) {
    if (base->layout == Layout::kGguf)
      fail(ErrorKind::kUnsupported, "{}: a delta is not from a GGUF file's weights", base->folder.string());
    info.delta_base = base->weights;
    roots.push_back(base->folder);
  } else if (base != nullptr) {
    info.weights = base->weights;
    info.adapters = base->adapters;
    info.tokenizer = base->tokenizer;
    info.generation_config = base->generation_config;
    roots.push_back(base->folder);
  }
  add_original_weights(folder, info);
  if (info.weights.empty() || (base == nullptr && !has_weights(folder)))
    throw Error(ErrorKind::kInput,
                fmt::format("{}: the folder holds no language model weights", folder.string()),
                "for a projector or LoRA folder, give the language model's folder as --model-base");
  read_mm_tower(config, roots, options, info, what);
  read_mm_connector(config, info.model, what);
  read_mm_compressor(config, info, what);
  apply_tensor_facts(info);
  read_text_files(folder, info);
  if (info.model.media.image_start_end && info.tokenizer)
    for (const char* token : {"<im_start>", "<im_end>"})
      if (!info.tokenizer->token_to_id(token))
        fail(ErrorKind::kFormat, "{}: mm_use_im_start_end, but the tokenizer has no {}", what, token);
  if (!info.chat_format)
    info.chat_format =
        with_context(what, [&] { return find_chat_format(format_name(config, info.model.decoder, what)); });
  return info;
}

}  // namespace llava
