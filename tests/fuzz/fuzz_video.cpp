#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "memory_file.h"
#include "vision/video.h"

// Any bytes as a film: counted, sampled by one of the models' rules, and the picked frames decoded. The limits keep
// a run fast; those of larger ones work the same way.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace llava;
  if (size == 0) return 0;
  const fuzz::MemoryFile file(data, size);
  VideoLimits limits;
  limits.image.max_pixels = 1 << 16;
  limits.max_frames = 1000;
  limits.max_seconds = 1;
  try {
    const VideoInfo info = probe_video(file.path(), limits);
    if (info.frames < 1 || info.frames > limits.max_frames || !(info.fps > 0)) std::abort();
    if (info.size.width * info.size.height > limits.image.max_pixels) std::abort();
    const FrameSampling sampling{.fps = 1.0, .max_frames = 8, .force_sample = size % 3 == 1, .midpoints = size % 3 == 2};
    const FramePick pick = pick_frames(info.frames, info.fps, sampling);
    if (pick.indices.empty() || pick.indices.size() > 8 || pick.times.size() != pick.indices.size()) std::abort();
    std::int64_t frames = 0;
    std::size_t next = 0;
    const FramesRead read = read_frames(
        file.path(), pick.indices,
        [&](std::size_t i, const Image& frame) {
          if (i < next || i >= pick.indices.size()) std::abort();  // each at most once, in order
          next = i + 1;
          if (static_cast<std::int64_t>(frame.rgb.size()) != frame.width * frame.height * 3) std::abort();
          if (frame.width * frame.height > limits.image.max_pixels) std::abort();
          ++frames;
          return true;
        },
        limits);
    if (read.delivered != frames) std::abort();
    if (static_cast<std::size_t>(frames) < pick.indices.size() && read.problem.empty()) std::abort();  // said so
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) std::abort();
  }
  return 0;
}
