#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

#include "config/model_config.h"
#include "vision/media_plan.h"
#include "vision/video.h"

/// A film as a model is shown it; the same for training and for answering.
namespace llava {

/// Which frames of a film or folder are shown: `num_frames` > 0: so many, spread evenly; 0: by the model's
/// rule, or all of a folder. Reads headers only. Errors as probe_video.
FramePick pick_film_frames(const std::filesystem::path& path, const ModelConfig& model,
                           std::int64_t num_frames, const VideoLimits& limits, VideoInfo* info = nullptr);

/// A frame as the tower takes it, [views,3,H,W]: never tiled; LLaVA-Mini's squashed (specification 1.8.4).
std::vector<float> render_frame(const Image& frame, const ImagePolicy& policy, const ModelConfig& model);

}  // namespace llava
