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

}  // namespace llava
