#include "config/media_layout.h"

namespace llava {

const char* to_string(PoolMode mode) {
  switch (mode) {
    case PoolMode::kNone:
      return "none";
    case PoolMode::kAverage:
      return "average";
    case PoolMode::kMax:
      return "max";
    case PoolMode::kBilinear:
      return "bilinear";
  }
  return "";
}

const char* to_string(Newline newline) {
  switch (newline) {
    case Newline::kNone:
      return "no_token";
    case Newline::kGrid:
      return "grid";
    case Newline::kFrame:
      return "frame";
    case Newline::kEnd:
      return "one_token";
  }
  return "";
}

std::int64_t pooled_side(std::int64_t side, PoolMode mode, std::int64_t stride) {
  if (mode == PoolMode::kNone) return side;
  return mode == PoolMode::kBilinear ? (side + stride - 1) / stride : side / stride;
}

bool is_fast(const MediaLayout& layout, std::int64_t view) {
  return layout.slow_every > 0 && (layout.first_frame + view) % layout.slow_every != 0;
}

std::int64_t video_token_count(const MediaLayout& layout, std::int64_t side) {
  std::int64_t count = layout.newline == Newline::kEnd ? 1 : 0;
  for (std::int64_t view = 0; view < layout.views; ++view) {
    const std::int64_t pooled = pooled_side(side, layout.pool, layout.pool_stride * (is_fast(layout, view) ? 2 : 1));
    count += pooled * (pooled + (layout.newline == Newline::kGrid ? 1 : 0));
    count += (layout.newline == Newline::kFrame ? 1 : 0) + (layout.slow_every > 0 ? 1 : 0);
  }
  return count;
}

}  // namespace llava
