#include <charconv>
#include <string>

#include "base/error.h"
#include "checkpoint/parts.h"

namespace llava {

namespace {

std::int64_t positive(const Json& config, const char* key, std::int64_t fallback, std::string_view what) {
  const auto value = json_get_or<std::int64_t>(config, key, fallback, what);
  if (value <= 0 || value > (1 << 24))
    fail(ErrorKind::kFormat, "{}: vision {} = {} is absurd", what, key, value);
  return value;
}

/// Keys that CLIP, SigLIP and DINOv2 share; the defaults are those of the ViT-B classes.
void read_common(const Json& config, TowerConfig& tower, std::int64_t patch_default,
                 std::string_view what) {
  tower.hidden_size = positive(config, "hidden_size", 768, what);
  tower.num_hidden_layers = positive(config, "num_hidden_layers", 12, what);
  tower.num_attention_heads = positive(config, "num_attention_heads", 12, what);
  tower.image_size = positive(config, "image_size", 224, what);
  tower.input_size = tower.image_size;
  tower.patch_size = positive(config, "patch_size", patch_default, what);
  tower.num_channels = positive(config, "num_channels", 3, what);
}

void read_activation(const Json& config, TowerConfig& tower, const char* fallback, double eps,
                     std::string_view what) {
  tower.hidden_act = with_context(what, [&] {
    return activation_from_string(json_get_or<std::string>(config, "hidden_act", fallback, what));
  });
  tower.layer_norm_eps = json_get_or<double>(config, "layer_norm_eps", eps, what);
}

void read_dinov2(const Json& config, TowerConfig& tower, std::string_view what) {
  tower.kind = TowerKind::kDinov2;
  read_common(config, tower, 14, what);
  tower.intermediate_size = tower.hidden_size * positive(config, "mlp_ratio", 4, what);
  read_activation(config, tower, "gelu", 1e-6, what);
  if (json_get_or<bool>(config, "use_swiglu_ffn", false, what))
    fail(ErrorKind::kUnsupported, "{}: use_swiglu_ffn = true is not supported", what);
  if (!json_get_or<bool>(config, "qkv_bias", true, what))
    fail(ErrorKind::kUnsupported, "{}: qkv_bias = false is not supported", what);
}

}  // namespace

TowerConfig tower_config_from_json(const Json& config, std::string_view what) {
  reject_unsupported_keys(config, what);
  const auto type = json_get_or<std::string>(config, "model_type", "clip_vision_model", what);
  if (type == "clip" || type == "siglip") {
    Json inner = json_get_or<Json>(config, "vision_config", Json::object(), what);
    if (!inner.is_object()) fail(ErrorKind::kFormat, "{}: vision_config must be an object", what);
    inner["model_type"] = type + "_vision_model";
    return tower_config_from_json(inner, what);
  }
  TowerConfig tower;
  if (type == "clip_vision_model") {
    tower.kind = TowerKind::kClip;
    read_common(config, tower, 32, what);
    tower.intermediate_size = positive(config, "intermediate_size", 3072, what);
    read_activation(config, tower, "quick_gelu", 1e-5, what);
  } else if (type == "siglip_vision_model") {
    tower.kind = TowerKind::kSiglip;
    read_common(config, tower, 16, what);
    tower.intermediate_size = positive(config, "intermediate_size", 3072, what);
    read_activation(config, tower, "gelu_pytorch_tanh", 1e-6, what);
  } else if (type == "dinov2") {
    read_dinov2(config, tower, what);
  } else {
    fail(ErrorKind::kUnsupported,
         "{}: vision model_type \"{}\" is not supported (clip_vision_model, siglip_vision_model, dinov2)",
         what, type);
  }
  return tower;
}

std::vector<std::int64_t> layer_list(const Json& config, const char* key, std::int64_t fallback,
                                     std::string_view what) {
  std::vector<std::int64_t> layers = id_list(config, key, what);
  if (layers.size() > 64) fail(ErrorKind::kFormat, "{}: \"{}\" lists {} layers", what, key, layers.size());
  return layers.empty() ? std::vector<std::int64_t>{fallback} : layers;
}

void set_projector_type(ConnectorConfig& connector, const std::string& type, std::string_view what) {
  constexpr std::string_view kPrefix = "mlp", kSuffix = "x_gelu";
  if (type == "linear") {
    connector.kind = ConnectorKind::kLinear;
    connector.depth = 1;
    return;
  }
  if (type == "identity") {
    connector.kind = ConnectorKind::kIdentity;
    connector.depth = 1;
    return;
  }
  if (type.starts_with(kPrefix) && type.ends_with(kSuffix) &&
      type.size() > kPrefix.size() + kSuffix.size()) {
    const char* begin = type.data() + kPrefix.size();
    const char* end = type.data() + type.size() - kSuffix.size();
    std::int64_t depth = 0;
    const auto [rest, error] = std::from_chars(begin, end, depth);
    if (error == std::errc() && rest == end && depth >= 1 && depth <= 16) {
      connector.kind = ConnectorKind::kMlp;
      connector.depth = depth;
      return;
    }
  }
  fail(ErrorKind::kUnsupported,
       "{}: mm_projector_type \"{}\" is not supported (linear, mlp<n>x_gelu, identity)", what, type);
}

ImagePolicy default_image_policy(const TowerConfig& tower) {
  ImagePolicy policy;
  policy.resize_height = policy.resize_width = policy.crop_height = policy.crop_width = tower.input_size;
  if (tower.kind == TowerKind::kClip) return policy;
  policy.resize = ResizeMode::kSquash;
  policy.center_crop = false;
  if (tower.kind == TowerKind::kSiglip) {
    policy.mean = policy.std = {0.5, 0.5, 0.5};
  } else {
    policy.mean = {0.485, 0.456, 0.406};
    policy.std = {0.229, 0.224, 0.225};
  }
  return policy;
}

void match_input_size(TowerConfig& tower, const ImagePolicy& policy, std::string_view what) {
  std::int64_t height = policy.resize_height, width = policy.resize_width;
  if (policy.center_crop) {
    height = policy.crop_height;
    width = policy.crop_width;
  } else if (policy.resize != ResizeMode::kSquash && policy.aspect_ratio != AspectRatio::kPad) {
    fail(ErrorKind::kUnsupported,
         "{}: the image processor gives images of varying size (no crop, no fixed size)", what);
  }
  if (!policy.center_crop && policy.resize == ResizeMode::kShortestEdge) width = height;
  if (height != width)
    fail(ErrorKind::kUnsupported, "{}: the image processor gives {}x{} pixels; only squares are supported",
         what, height, width);
  if (tower.kind != TowerKind::kDinov2 && height != tower.image_size)
    fail(ErrorKind::kUnsupported,
         "{}: the image processor gives {}x{} pixels but the vision tower's image_size is {}", what, height,
         width, tower.image_size);
  tower.input_size = height;
}

}  // namespace llava
