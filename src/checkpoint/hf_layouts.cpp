#include <string>

#include "base/error.h"
#include "checkpoint/parts.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

std::string dtype_of(const Json& config, const Json& text, std::string_view what) {
  for (const Json* object : {&config, &text})
    for (const char* key : {"dtype", "torch_dtype"})
      if (auto name = json_get_or<std::string>(*object, key, "", what); !name.empty()) {
        if (name.starts_with("torch.")) name = name.substr(6);
        if (name != "float32" && name != "bfloat16" && name != "float16")
          fail(ErrorKind::kUnsupported, "{}: {} \"{}\" is not supported (float32, bfloat16, float16)", what,
               key, name);
        return name;
      }
  return "float32";
}

/// text_config or vision_config; the HF class default is an empty object of `model_type`.
Json sub_config(const Json& config, const char* key, std::string_view what) {
  Json inner = json_get_or<Json>(config, key, Json::object(), what);
  if (!inner.is_object()) fail(ErrorKind::kFormat, "{}: {} must be an object", what, key);
  return inner;
}

/// Without a vision_config: CLIP ViT-L/14 at 336 pixels, OneVision's SigLIP of 26 blocks.
Json default_llava_vision(const std::string& model_type) {
  if (model_type == "llava_onevision")
    return {{"model_type", "siglip_vision_model"},
            {"hidden_size", 1152},
            {"intermediate_size", 4304},
            {"num_hidden_layers", 26},
            {"image_size", 384},
            {"num_attention_heads", 16},
            {"patch_size", 14}};
  return {{"model_type", "clip_vision_model"},
          {"hidden_size", 1024},
          {"intermediate_size", 4096},
          {"num_hidden_layers", 24},
          {"image_size", 336},
          {"num_attention_heads", 16},
          {"patch_size", 14}};
}

std::int64_t default_image_token(const std::string& model_type) {
  return model_type == "llava_onevision" ? 151646 : model_type == "llava_next_video" ? 32001 : 32000;
}

void read_hf_selection(const Json& config, const std::string& model_type, ModelConfig& model,
                       std::string_view what) {
  const bool onevision = model_type == "llava_onevision";
  TowerConfig& tower = *model.tower;
  const bool vip = model_type == "vipllava";
  tower.select_layers = layer_list(config, vip ? "vision_feature_layers" : "vision_feature_layer",
                                   onevision ? -1 : -2, what);
  if (vip && !config.contains("vision_feature_layers")) tower.select_layers = {-2, -5, -8, -11, 6};
  const auto strategy = json_get_or<std::string>(config, "vision_feature_select_strategy",
                                                 onevision ? "full" : "default", what);
  if (strategy == "full") {
    tower.select_feature = SelectFeature::kClsPatch;
  } else if (strategy != "default") {
    fail(ErrorKind::kUnsupported,
         "{}: vision_feature_select_strategy \"{}\" is not supported (default, full)", what, strategy);
  } else if (!tower.has_cls()) {
    fail(ErrorKind::kUnsupported,
         "{}: vision_feature_select_strategy \"default\" would drop a real patch of a tower without class "
         "token; use \"full\"",
         what);
  }
  ConnectorConfig& c = model.connector;
  c.kind = ConnectorKind::kMlp;
  c.depth = 2;
  c.in_size = tower.hidden_size * static_cast<std::int64_t>(tower.select_layers.size());
  c.hidden_size = model.decoder.hidden_size;
  c.bias = vip || json_get_or<bool>(config, "multimodal_projector_bias", true, what);
  c.input_norm = vip;
  c.input_norm_eps = json_get_or<double>(config, "projector_layernorm_eps", 1e-5, what);
  c.act = with_context(what, [&] {
    return activation_from_string(json_get_or<std::string>(config, "projector_hidden_act", "gelu", what));
  });
}

}  // namespace

void read_token_ids(const Json& config, const std::string& model_type, ModelConfig& model,
                    std::string_view what) {
  const bool llama = model_type != "qwen2";
  model.bos_token_id = json_get_or<std::int64_t>(config, "bos_token_id",
                                                 config.contains("bos_token_id") || !llama ? -1 : 1, what);
  model.pad_token_id = json_get_or<std::int64_t>(config, "pad_token_id", -1, what);
  model.eos_token_ids = id_list(config, "eos_token_id", what);
  if (model.eos_token_ids.empty() && llama && !config.contains("eos_token_id")) model.eos_token_ids = {2};
}

CheckpointInfo read_hf_text(const fs::path& folder, const Json& config) {
  const std::string what = (folder / "config.json").string();
  CheckpointInfo info;
  info.folder = folder;
  info.layout = Layout::kHfText;
  info.config = config;
  const auto type = json_get<std::string>(config, "model_type", what);
  info.model.decoder = decoder_config_from_json(config, type, what);
  read_token_ids(config, type, info.model, what);
  info.model.torch_dtype = dtype_of(config, config, what);
  add_folder_weights(info, folder, WeightSource::Part::kAll);
  apply_tensor_facts(info);
  read_text_files(folder, info);
  return info;
}

CheckpointInfo read_hf_llava(const fs::path& folder, const Json& config) {
  const std::string what = (folder / "config.json").string();
  CheckpointInfo info;
  info.folder = folder;
  info.layout = Layout::kHfLlava;
  info.config = config;
  reject_unsupported_keys(config, what);
  const auto kind = json_get<std::string>(config, "model_type", what);
  const bool onevision = kind == "llava_onevision";
  const Json text = sub_config(config, "text_config", what);
  const auto type = json_get_or<std::string>(text, "model_type", onevision ? "qwen2" : "llama", what);
  info.model.decoder = decoder_config_from_json(text, type, what + ": text_config");
  const Json vision = sub_config(config, "vision_config", what);
  info.model.tower =
      tower_config_from_json(vision.empty() ? default_llava_vision(kind) : vision, what + ": vision_config");
  read_hf_selection(config, kind, info.model, what);
  read_token_ids(text, type, info.model, what);
  info.model.pad_token_id =
      json_get_or<std::int64_t>(config, "pad_token_id", info.model.pad_token_id, what);
  info.model.image_token_id = json_get_or<std::int64_t>(config, "image_token_id", -1, what);
  if (info.model.image_token_id < 0)
    info.model.image_token_id = json_get_or<std::int64_t>(config, "image_token_index", default_image_token(kind), what);
  if (info.model.image_token_id < 0)
    fail(ErrorKind::kFormat, "{}: image_token_index {} is negative", what, info.model.image_token_id);
  info.model.torch_dtype = dtype_of(config, text, what);
  const auto policy = read_image_policy(folder);
  info.image_policy = policy ? *policy : default_image_policy(*info.model.tower);
  match_input_size(*info.model.tower, *info.image_policy, folder.string());
  read_hf_media(config, kind, info.model, *info.image_policy, what);
  add_folder_weights(info, folder, WeightSource::Part::kAll);
  apply_tensor_facts(info);
  read_text_files(folder, info);
  return info;
}

CheckpointInfo read_hf_vision(const fs::path& folder, const Json& config) {
  const std::string what = (folder / "config.json").string();
  CheckpointInfo info;
  info.folder = folder;
  info.layout = Layout::kHfVision;
  info.config = config;
  TowerFolder tower = read_tower_folder(folder);
  tower.config.select_layers = {-1};
  tower.config.select_feature = SelectFeature::kClsPatch;
  tower.config.apply_final_norm = tower.config.kind == TowerKind::kDinov2;
  info.model.tower = tower.config;
  info.model.connector.kind = ConnectorKind::kIdentity;
  info.model.connector.depth = 1;
  info.model.connector.in_size = info.model.connector.hidden_size = tower.config.hidden_size;
  info.model.torch_dtype = dtype_of(config, config, what);
  info.image_policy = tower.policy;
  add_folder_weights(info, folder, WeightSource::Part::kVisionTower);
  return info;
}

CheckpointInfo read_gguf_file(const fs::path& path) {
  CheckpointInfo info;
  info.folder = path;
  info.layout = Layout::kGguf;
  read_gguf_decoder(path, info);
  apply_tensor_facts(info);
  info.config = Json::object();
  return info;
}

}  // namespace llava
