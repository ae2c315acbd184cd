#include "vision/film.h"

#include "vision/resample.h"

namespace llava {

FramePick pick_film_frames(const std::filesystem::path& path, const ModelConfig& model,
                           std::int64_t num_frames, const VideoLimits& limits, VideoInfo* info) {
  const VideoInfo found = probe_video(path, limits);
  if (info != nullptr) *info = found;
  FrameSampling sampling{.fps = model.media.video_fps,
                         .max_frames = model.media.video_max_frames,
                         .midpoints = model.compressor.has_value()};
  if (std::filesystem::is_directory(path)) sampling = {.fps = found.fps, .max_frames = 0};
  if (num_frames > 0) {
    sampling.max_frames = std::min(num_frames, found.frames);
    sampling.force_sample = true;
  }
  return pick_frames(found.frames, found.fps, sampling);
}

std::vector<float> render_frame(const Image& frame, const ImagePolicy& policy, const ModelConfig& model) {
  ImagePolicy each = policy;
  each.aspect_ratio = AspectRatio::kSquare;
  const std::int64_t side = model.tower ? model.tower->input_size : 0;
  if (model.compressor && side > 0) {
    const Image squashed = squash_nearest(frame, {side, side});
    return render_pixels(squashed, plan_media({side, side}, each, model), each);
  }
  return render_pixels(frame, plan_media({frame.width, frame.height}, each, model), each);
}

}  // namespace llava
