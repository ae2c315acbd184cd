#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "vision/image.h"

namespace llava {

/// Which frames of a film are shown (specification 1.5.1).
struct FrameSampling {
  double fps = 1.0;             ///< video_fps: frames a second; used while they are at most max_frames
  std::int64_t max_frames = 0;  ///< frames_upbound: more are spread evenly instead; 0: no bound
  bool force_sample = false;    ///< always max_frames, spread evenly
  /// LLaVA-Mini: the middles of equal parts, one part a second (specification 1.8.4).
  bool midpoints = false;
};

struct FramePick {
  std::vector<std::int64_t> indices;  ///< ascending
  std::vector<double> times;          ///< seconds, one for each, as the instruction text names them
  double duration = 0;                ///< seconds
};

/// Picks among `total` frames as the original code does: every round(fps / sampling.fps)-th, or
/// linspace(0, total-1, max_frames) cut down to whole numbers. The first rule's times are index / step.
/// Error{kInput} if there are no frames or the rates are no positive numbers.
FramePick pick_frames(std::int64_t total, double fps, const FrameSampling& sampling);

/// "The video lasts for … Please answer …" in the original's words (specification 1.5.6).
std::string time_instruction(const FramePick& pick);

struct VideoInfo {
  std::int64_t frames = 0;
  double fps = 0;       ///< average
  double duration = 0;  ///< seconds, frames / fps
  ImageSize size;       ///< upright
  std::string problem;  ///< empty, or why the file holds fewer frames than it says
};

struct VideoLimits {
  ImageLimits image;                               ///< of a frame
  std::int64_t max_frames = std::int64_t{1} << 22;  ///< in the file
  /// That one pass over a film may take, without what is done with its frames; 0: any time. A small file can
  /// claim that its few bytes are millions of frames.
  double max_seconds = 3600;
};

/// Counts the frames by reading the file through once, without decoding. A folder is a film of its image
/// files in name order at two frames a second. Error{kInput|kFormat|kUnsupported}: not a film, no video
/// stream, above the limits (the hint names the option that raises it), or built without FFmpeg.
VideoInfo probe_video(const std::filesystem::path& path, const VideoLimits& limits = {});

/// What came of reading frames.
struct FramesRead {
  std::int64_t delivered = 0;
  /// Empty, or what is wrong: which frames are missing or damaged and why. Says it, too, where every frame came
  /// but damaged parts of the file were skipped before it.
  std::string problem;
};

/// Decodes and hands out the frames at `indices` (ascending) one by one, upright; one frame is in memory at
/// a time. A damaged file or folder gives what can be read: `on_frame` gets no frame for the others. Returning
/// false from it stops. Errors as probe_video.
FramesRead read_frames(const std::filesystem::path& path, const std::vector<std::int64_t>& indices,
                       const std::function<bool(std::size_t i, Image frame)>& on_frame,
                       const VideoLimits& limits = {});

}  // namespace llava
