#pragma once
#include <filesystem>

#include "checkpoint/checkpoint.h"
#include "config/stage_config.h"

namespace llava {

/// The image policy of a stage: the checkpoint's, or as the stage's image_aspect_ratio says.
ImagePolicy stage_policy(const CheckpointInfo& checkpoint, const StageConfig& stage);

/// Before training: whether a model of `base`'s layout can say that images are prepared so.
/// Error{kUnsupported}.
void check_final_policy(const CheckpointInfo& base, const StageConfig& last_stage);

/// Makes the written model say it: config.json's image_aspect_ratio, or do_pad of llava-hf's image
/// processor. Nothing where the stage has the model's own way.
void write_final_policy(const std::filesystem::path& folder, const CheckpointInfo& base,
                        const StageConfig& last_stage);

}  // namespace llava
