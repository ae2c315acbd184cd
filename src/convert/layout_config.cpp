#include "convert/layout_config.h"

#include "base/error.h"

namespace llava {

namespace {

[[noreturn]] void cannot_say(const char* layout, const std::string& what) {
  throw Error(ErrorKind::kUnsupported, fmt::format("the {} layout cannot express {}", layout, what),
              "write the model in its own layout: leave --to away");
}

Json rope_json(const RopeScaling& rope) {
  const double factor = rope.factor;
  switch (rope.type) {
    case RopeType::kDefault:
      return nullptr;
    case RopeType::kLinear:
      return {{"rope_type", "linear"}, {"factor", factor}};
    case RopeType::kDynamic:
      return {{"rope_type", "dynamic"}, {"factor", factor}};
    case RopeType::kLlama3:
      return {{"rope_type", "llama3"},
              {"factor", factor},
              {"low_freq_factor", rope.low_freq_factor},
              {"high_freq_factor", rope.high_freq_factor},
              {"original_max_position_embeddings", rope.original_max_position_embeddings}};
    case RopeType::kYarn: {
      Json yarn = {{"rope_type", "yarn"}, {"factor", factor}, {"beta_fast", rope.beta_fast}, {"beta_slow", rope.beta_slow}};
      yarn["truncate"] = rope.truncate;
      if (rope.original_max_position_embeddings > 0)
        yarn["original_max_position_embeddings"] = rope.original_max_position_embeddings;
      if (rope.attention_factor) yarn["attention_factor"] = *rope.attention_factor;
      if (rope.mscale) yarn["mscale"] = *rope.mscale;
      if (rope.mscale_all_dim) yarn["mscale_all_dim"] = *rope.mscale_all_dim;
      return yarn;
    }
  }
  return nullptr;
}

Json one_or_list(const std::vector<std::int64_t>& numbers) {
  return numbers.size() == 1 ? Json(numbers.front()) : Json(numbers);
}

void add_token_ids(const ModelConfig& model, Json& config) {
  config["bos_token_id"] = model.bos_token_id >= 0 ? Json(model.bos_token_id) : Json();
  config["eos_token_id"] = model.eos_token_ids.empty() ? Json() : one_or_list(model.eos_token_ids);
}

/// What both layouts share with LLaVA 1.5: one view an image, every patch once.
void check_flat(const ModelConfig& model, const char* layout) {
  const ConnectorConfig& c = model.connector;
  if (!model.tower) cannot_say(layout, "a model without a vision tower");
  if (model.tower->kind == TowerKind::kDinov2) cannot_say(layout, "a DINOv2 tower");
  if (c.patch_merge != 1) cannot_say(layout, "mm_patch_merge");
  if (c.class_token) cannot_say(layout, "mm_projector_class_token");
  if (c.input_norm) cannot_say(layout, "mm_projector_norm");
  if (model.compressor) cannot_say(layout, "LLaVA-Mini's compressor");
  if (model.media.merge != TileMerge::kFlat || model.media.image_newline)
    cannot_say(layout, "tiles (anyres); conversion across layouts is there for one view an image");
}

}  // namespace

Json text_config_json(const ModelConfig& model) {
  const DecoderConfig& d = model.decoder;
  Json text = {{"model_type", d.model_type},
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
               {"rope_scaling", rope_json(d.rope_scaling)},
               {"hidden_act", to_string(d.hidden_act)},
               {"tie_word_embeddings", d.tie_word_embeddings}};
  if (d.model_type == "llama") text["attention_bias"] = d.attention_bias, text["mlp_bias"] = d.mlp_bias;
  if (d.model_type == "mistral") text["sliding_window"] = d.sliding_window > 0 ? Json(d.sliding_window) : Json();
  if (d.model_type == "qwen2") {
    text["use_sliding_window"] = d.sliding_window > 0;
    if (d.sliding_window > 0)
      text["sliding_window"] = d.sliding_window, text["max_window_layers"] = d.first_sliding_layer;
  }
  add_token_ids(model, text);
  return text;
}

Json vision_config_json(const TowerConfig& t) {
  Json vision = {{"model_type", t.kind == TowerKind::kClip ? "clip_vision_model" : "siglip_vision_model"},
                 {"hidden_size", t.hidden_size},
                 {"intermediate_size", t.intermediate_size},
                 {"num_hidden_layers", t.num_hidden_layers},
                 {"num_attention_heads", t.num_attention_heads},
                 {"image_size", t.image_size},
                 {"patch_size", t.patch_size},
                 {"num_channels", t.num_channels},
                 {"hidden_act", to_string(t.hidden_act)},
                 {"layer_norm_eps", t.layer_norm_eps}};
  if (t.kind == TowerKind::kSiglip) vision["vision_use_head"] = false;
  return vision;
}

Json hf_llava_config(const ModelConfig& model, std::int64_t image_token_id, std::int64_t vocab_size) {
  check_flat(model, "llava-hf");
  const ConnectorConfig& c = model.connector;
  if (c.kind != ConnectorKind::kMlp || c.depth != 2) cannot_say("llava-hf", "a connector other than mlp2x");
  Json text = text_config_json(model);
  text["vocab_size"] = vocab_size;
  const TowerConfig& tower = *model.tower;
  const bool full = tower.select_feature == SelectFeature::kClsPatch || !tower.has_cls();
  return {{"architectures", {"LlavaForConditionalGeneration"}},
          {"model_type", "llava"},
          {"text_config", text},
          {"vision_config", vision_config_json(tower)},
          {"image_token_index", image_token_id},
          {"image_seq_length", tower.num_features()},
          {"projector_hidden_act", to_string(c.act)},
          {"multimodal_projector_bias", c.bias},
          {"vision_feature_layer", one_or_list(tower.select_layers)},
          {"vision_feature_select_strategy", full ? "full" : "default"},
          {"pad_token_id", model.pad_token_id >= 0 ? Json(model.pad_token_id) : Json()},
          {"tie_word_embeddings", model.decoder.tie_word_embeddings}};
}

std::int64_t blocks_to_delete(const TowerConfig& tower) {
  if (tower.kind != TowerKind::kSiglip || tower.select_layers == std::vector<std::int64_t>{-2}) return 0;
  if (tower.select_layers != std::vector<std::int64_t>{-1})
    cannot_say("original LLaVA", "a SigLIP tower with features of an inner block");
  return 1;
}

Json original_llava_config(const CheckpointInfo& base, std::int64_t vocab_size, const std::string& tower) {
  const ModelConfig& model = base.model;
  check_flat(model, "original LLaVA");
  if (model.tower->select_layers.size() != 1) cannot_say("original LLaVA", "several feature layers");
  if (model.connector.act != Activation::kGelu || !model.connector.bias)
    cannot_say("original LLaVA", "a connector with another activation than gelu, or without biases");
  const std::string& type = model.decoder.model_type;
  Json config = text_config_json(model);
  config.erase("model_type");
  config["architectures"] = {type == "mistral" ? "LlavaMistralForCausalLM"
                             : type == "qwen2" ? "LlavaQwenForCausalLM"
                                               : "LlavaLlamaForCausalLM"};
  config["model_type"] = type == "mistral" ? "llava_mistral" : type == "qwen2" ? "llava_qwen" : "llava";
  config["vocab_size"] = vocab_size;
  config["mm_vision_tower"] = tower;
  config["mm_hidden_size"] = model.connector.in_size;
  config["mm_projector_type"] = model.connector.kind == ConnectorKind::kLinear
                                    ? std::string("linear")
                                    : fmt::format("mlp{}x_gelu", model.connector.depth);
  config["mm_vision_select_layer"] = model.tower->select_layers.front() - blocks_to_delete(*model.tower);
  config["mm_vision_select_feature"] =
      model.tower->select_feature == SelectFeature::kPatch ? "patch" : "cls_patch";
  config["mm_patch_merge_type"] = "flat";
  config["mm_use_im_start_end"] = config["mm_use_im_patch_token"] = false;
  config["use_mm_proj"] = true;
  const bool pads = base.image_policy && base.image_policy->aspect_ratio == AspectRatio::kPad;
  config["image_aspect_ratio"] = pads ? "pad" : "square";
  if (model.pad_token_id >= 0 && model.pad_token_id < vocab_size) config["pad_token_id"] = model.pad_token_id;
  return config;
}

}  // namespace llava
