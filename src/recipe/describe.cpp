#include "recipe/recipe.h"

namespace llava {

namespace {

const char* to_string(ResizeMode mode) {
  switch (mode) {
    case ResizeMode::kNone:
      return "none";
    case ResizeMode::kShortestEdge:
      return "shortest-edge";
    case ResizeMode::kSquash:
      return "squash";
  }
  return "";
}

const char* to_string(ResampleFilter filter) {
  switch (filter) {
    case ResampleFilter::kNearest:
      return "nearest";
    case ResampleFilter::kLanczos:
      return "lanczos";
    case ResampleFilter::kBilinear:
      return "bilinear";
    case ResampleFilter::kBicubic:
      return "bicubic";
    case ResampleFilter::kBox:
      return "box";
    case ResampleFilter::kHamming:
      return "hamming";
  }
  return "";
}

const char* to_string(AspectRatio ratio) {
  switch (ratio) {
    case AspectRatio::kSquare:
      return "square";
    case AspectRatio::kPad:
      return "pad";
    case AspectRatio::kAnyRes:
      return "anyres";
  }
  return "";
}

const char* to_string(RopeType type) {
  switch (type) {
    case RopeType::kDefault:
      return "default";
    case RopeType::kLinear:
      return "linear";
    case RopeType::kDynamic:
      return "dynamic";
    case RopeType::kYarn:
      return "yarn";
    case RopeType::kLlama3:
      return "llama3";
  }
  return "";
}

const char* to_string(ConnectorKind kind) {
  switch (kind) {
    case ConnectorKind::kIdentity:
      return "identity";
    case ConnectorKind::kLinear:
      return "linear";
    case ConnectorKind::kMlp:
      return "mlp";
  }
  return "";
}

OrderedJson describe_tower(const TowerConfig& t) {
  return {{"kind", llava::to_string(t.kind)},
          {"hidden_size", t.hidden_size},
          {"intermediate_size", t.intermediate_size},
          {"num_hidden_layers", t.num_hidden_layers},
          {"num_attention_heads", t.num_attention_heads},
          {"image_size", t.image_size},
          {"input_size", t.input_size},
          {"patch_size", t.patch_size},
          {"layer_norm_eps", t.layer_norm_eps},
          {"hidden_act", llava::to_string(t.hidden_act)},
          {"select_layers", t.select_layers},
          {"select_feature", t.select_feature == SelectFeature::kPatch ? "patch" : "cls_patch"},
          {"apply_final_norm", t.apply_final_norm}};
}

OrderedJson describe_connector(const ConnectorConfig& c) {
  return {{"kind", to_string(c.kind)},      {"depth", c.depth},
          {"in_size", c.in_size},           {"hidden_size", c.hidden_size},
          {"act", llava::to_string(c.act)}, {"bias", c.bias},
          {"patch_merge", c.patch_merge},   {"input_norm", c.input_norm},
          {"class_token", c.class_token}};
}

OrderedJson describe_media(const MediaConfig& m) {
  OrderedJson json = {{"mm_patch_merge_type", llava::to_string(m.merge)}};
  if (m.max_tiles > 0) json["anyres_max"] = m.max_tiles;
  if (m.nobase) json["nobase"] = true;
  if (m.max_pool) json["maxpool2x2"] = true;
  json["image_newline"] = m.image_newline;
  json["tile_single_images_only"] = m.tile_single_images_only;
  if (!m.image_label.empty()) json["mm_image_label"] = m.image_label;
  if (!m.frame_label.empty()) json["mm_frame_label"] = m.frame_label;
  if (m.video_pool == PoolMode::kNone) return json;
  json["video"] = {{"pool_mode", llava::to_string(m.video_pool)},
                   {"pool_stride", m.video_pool_stride},
                   {"pool_before_connector", m.video_pool_first},
                   {"newline_position", llava::to_string(m.video_newline)}};
  return json;
}

OrderedJson describe_decoder(const DecoderConfig& d) {
  OrderedJson json = {{"model_type", d.model_type},
                      {"vocab_size", d.vocab_size},
                      {"hidden_size", d.hidden_size},
                      {"intermediate_size", d.intermediate_size},
                      {"num_hidden_layers", d.num_hidden_layers},
                      {"num_attention_heads", d.num_attention_heads},
                      {"num_key_value_heads", d.num_key_value_heads},
                      {"head_dim", d.head_dim},
                      {"max_position_embeddings", d.max_position_embeddings},
                      {"rms_norm_eps", d.rms_norm_eps},
                      {"rope_theta", d.rope_theta},
                      {"rope_type", to_string(d.rope_scaling.type)}};
  if (d.rope_scaling.type != RopeType::kDefault) json["rope_factor"] = d.rope_scaling.factor;
  json["hidden_act"] = llava::to_string(d.hidden_act);
  json["attention_bias"] = d.attention_bias;
  json["mlp_bias"] = d.mlp_bias;
  json["tie_word_embeddings"] = d.tie_word_embeddings;
  json["sliding_window"] = d.sliding_window;
  return json;
}

}  // namespace

OrderedJson describe(const ModelConfig& model) {
  OrderedJson json = OrderedJson::object();
  if (model.tower) {
    json["tower"] = describe_tower(*model.tower);
    json["connector"] = describe_connector(model.connector);
    if (model.connector.kind != ConnectorKind::kIdentity) json["media"] = describe_media(model.media);
    json["image_tokens"] = model.num_image_tokens();
  }
  const bool tower_alone = model.tower && model.connector.kind == ConnectorKind::kIdentity;
  if (!tower_alone) json["decoder"] = describe_decoder(model.decoder);
  if (model.compressor)
    json["compressor"] = {{"compressor_size", model.compressor->size},
                          {"prefusion_layer_num", model.compressor->prefusion_layer_num},
                          {"resolution_ratio", model.compressor->resolution_ratio}};
  const ParameterCount count = count_parameters(model);
  json["parameters"] = {
      {"tower", count.tower}, {"connector", count.connector}, {"decoder", tower_alone ? 0 : count.decoder}};
  json["dtype"] = model.torch_dtype;
  return json;
}

OrderedJson describe(const ImagePolicy& p) {
  OrderedJson json = {{"aspect_ratio", to_string(p.aspect_ratio)}};
  if (p.aspect_ratio == AspectRatio::kAnyRes) {
    OrderedJson pinpoints = OrderedJson::array();
    for (const GridPinpoint& pin : p.grid_pinpoints) pinpoints.push_back({pin.width, pin.height});
    json["grid_pinpoints"] = std::move(pinpoints);
  }
  const OrderedJson rest = {
          {"resize", to_string(p.resize)},
          {"resize_height", p.resize_height},
          {"resize_width", p.resize_width},
          {"center_crop", p.center_crop},
          {"crop_height", p.crop_height},
          {"crop_width", p.crop_width},
          {"resample", to_string(p.resample)},
          {"mean", p.mean},
          {"std", p.std}};
  for (const auto& [key, value] : rest.items()) json[key] = value;
  return json;
}

OrderedJson describe(const Recipe& recipe) {
  OrderedJson json = {{"name", recipe.name},
                      {"family", recipe.family},
                      {"kind", to_string(recipe.kind)},
                      {"source", recipe.source}};
  const OrderedJson model = describe(recipe.model);
  for (const auto& [key, value] : model.items()) json[key] = value;
  if (recipe.image_policy) json["image_policy"] = describe(*recipe.image_policy);
  if (!recipe.chat_format.empty()) json["chat_format"] = recipe.chat_format;
  return json;
}

}  // namespace llava
