#include <string>

#include "base/error.h"
#include "checkpoint/parts.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

void read_nano_tower(const fs::path& folder, const Json& config, const ReadOptions& options,
                     CheckpointInfo& info, const std::string& what) {
  const fs::path path =
      options.vision_tower
          ? *options.vision_tower
          : resolve_part(json_get<std::string>(config, "vision_tower", what), {folder},
                         what + ": vision_tower", "give the vision tower's folder as --vision-tower");
  TowerFolder tower = read_tower_folder(path);
  info.model.tower = tower.config;
  TowerConfig& t = *info.model.tower;
  read_mm_media(config, info.model, tower.policy, what);
  match_input_size(t, tower.policy, what);
  t.select_layers =
      layer_list(config, "mm_vision_select_layer", t.kind == TowerKind::kDinov2 ? -1 : -2, what);
  const bool class_token = json_get_or<bool>(config, "mm_projector_class_token", false, what);
  const auto feature = json_get_or<std::string>(config, "mm_vision_select_feature",
                                                class_token ? "cls_patch" : "patch", what);
  if (feature != "patch" && feature != "cls_patch")
    fail(ErrorKind::kUnsupported, "{}: mm_vision_select_feature \"{}\" is not supported (patch, cls_patch)",
         what, feature);
  if (class_token && feature != "cls_patch")
    fail(ErrorKind::kFormat, "{}: mm_projector_class_token needs mm_vision_select_feature \"cls_patch\"",
         what);
  t.select_feature = feature == "patch" ? SelectFeature::kPatch : SelectFeature::kClsPatch;
  const bool last = t.select_layers == std::vector<std::int64_t>{-1};
  t.apply_final_norm =
      json_get_or<bool>(config, "mm_vision_final_norm", t.kind == TowerKind::kDinov2 && last, what);
  info.image_policy = tower.policy;
  add_folder_weights(info, tower.folder, WeightSource::Part::kVisionTower);
}

void read_nano_decoder(const fs::path& folder, const Json& config, const ReadOptions& options,
                       CheckpointInfo& info, const std::string& what) {
  const fs::path path = options.base
                            ? *options.base
                            : resolve_part(json_get<std::string>(config, "language_model", what), {folder},
                                           what + ": language_model",
                                           "give the language model's folder or GGUF file as --model-base");
  CheckpointInfo language = read_checkpoint(path);
  if (language.layout != Layout::kGguf && language.layout != Layout::kHfText)
    fail(ErrorKind::kUnsupported, "{}: language_model is a checkpoint of layout {}, not a text model", what,
         to_string(language.layout));
  info.model.decoder = language.model.decoder;
  info.model.bos_token_id = language.model.bos_token_id;
  info.model.pad_token_id = language.model.pad_token_id;
  info.model.eos_token_ids = language.model.eos_token_ids;
  info.model.torch_dtype = language.model.torch_dtype;
  info.tokenizer = language.tokenizer;
  info.chat_format = language.chat_format;
  info.generation_config = language.generation_config;
  info.stop_ids = language.stop_ids;
  for (WeightSource source : language.weights) {
    source.part = WeightSource::Part::kDecoder;
    info.weights.push_back(std::move(source));
  }
}

void read_nano_connector(const Json& config, ModelConfig& model, const std::string& what) {
  ConnectorConfig& c = model.connector;
  set_projector_type(c, json_get_or<std::string>(config, "mm_projector_type", "mlp2x_gelu", what), what);
  const auto width =
      model.tower->hidden_size * static_cast<std::int64_t>(model.tower->select_layers.size());
  c.in_size = json_get_or<std::int64_t>(config, "mm_hidden_size", width, what);
  if (c.in_size != width)
    fail(ErrorKind::kFormat, "{}: mm_hidden_size {} differs from the vision tower's width {}", what,
         c.in_size, width);
  c.hidden_size = model.decoder.hidden_size;
  c.patch_merge = json_get_or<std::int64_t>(config, "mm_patch_merge", 1, what);
  c.input_norm = json_get_or<bool>(config, "mm_projector_norm", false, what);
  c.class_token = json_get_or<bool>(config, "mm_projector_class_token", false, what);
}

void read_nano_media(const Json& config, MediaConfig& media, const std::string& what) {
  media.image_label = json_get_or<std::string>(config, "mm_image_label", "", what);
  media.frame_label = json_get_or<std::string>(config, "mm_frame_label", "", what);
  media.video_max_frames = json_get_or<std::int64_t>(config, "frames_upbound", media.video_max_frames, what);
}

}  // namespace

CheckpointInfo read_nano(const fs::path& folder, const Json& config, const ReadOptions& options) {
  const std::string what = (folder / "config.json").string();
  CheckpointInfo info;
  info.folder = folder;
  info.layout = Layout::kNano;
  info.config = config;
  info.tokenisation = ImageTokenisation::kChunks;
  info.model.image_token_id = -200;
  read_nano_tower(folder, config, options, info, what);
  read_nano_decoder(folder, config, options, info, what);
  read_nano_connector(config, info.model, what);
  read_nano_media(config, info.model.media, what);
  if (const fs::path projector = folder / "mm_projector.safetensors"; fs::is_regular_file(projector))
    add_weight_file(info, projector, WeightSource::Part::kConnector);
  if (fs::is_regular_file(folder / "adapter_config.json")) info.adapters.push_back(read_adapter(folder));
  if (const auto name = json_get_or<std::string>(config, "chat_format", "", what); !name.empty())
    info.chat_format = with_context(what, [&] { return find_chat_format(name); });
  if (const auto ids = id_list(config, "eos_token_id", what); !ids.empty()) info.stop_ids = ids;
  return info;
}

}  // namespace llava
