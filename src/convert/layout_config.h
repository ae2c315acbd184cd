#pragma once
#include "base/json.h"
#include "checkpoint/checkpoint.h"

/// config.json of a layout from what a model is.
namespace llava {

/// transformers' text_config (a whole config.json where the model is text only).
Json text_config_json(const ModelConfig& model);
/// transformers' vision_config, also config.json of a tower's own folder.
Json vision_config_json(const TowerConfig& tower);

/// LlavaConfig of llava-hf. `image_token_id` stands for one feature; `vocab_size` are the rows written.
/// Error{kUnsupported} for connectors and media that LlavaForConditionalGeneration lacks.
Json hf_llava_config(const ModelConfig& model, std::int64_t image_token_id, std::int64_t vocab_size);

/// Blocks to add behind a tower's last for the original layout: its SigLIP class deletes the last block and takes what
/// the one before it gives, so a model that uses the last block's output needs one more. 0 or 1.
std::int64_t blocks_to_delete(const TowerConfig& tower);

/// The original LLaVA's config.json. `tower` is what mm_vision_tower says. Error{kUnsupported} as above.
Json original_llava_config(const CheckpointInfo& base, std::int64_t vocab_size, const std::string& tower);

}  // namespace llava
