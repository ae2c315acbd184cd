#pragma once
#include <cstdint>

#include "base/fields.h"

namespace llava {

/// What a run's media may be, and how films are shown. Media above a limit are unusable samples.
struct MediaLimitsConfig {
  std::int64_t num_frames = 0;  ///< of a film, spread evenly; 0: by the model's rule
  std::int64_t max_file_bytes = std::int64_t{256} << 20;
  std::int64_t max_pixels = 178956970;
  std::int64_t max_side = 65500;
  std::int64_t max_video_frames = std::int64_t{1} << 22;  ///< in the file
  double max_video_seconds = 60;                          ///< that reading one film may take; 0: any time
};

template <class V>
void visit_fields(V& v, MediaLimitsConfig& c) {
  v("num_frames", c.num_frames), v("max_file_bytes", c.max_file_bytes), v("max_pixels", c.max_pixels);
  v("max_side", c.max_side), v("max_video_frames", c.max_video_frames),
      v("max_video_seconds", c.max_video_seconds);
}

}  // namespace llava
