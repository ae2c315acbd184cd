#pragma once
#include <cstdint>

/// How the vision tower's features of one image or video become the rows that stand in the prompt: computed
/// from sizes alone (vision/media_plan.h), carried out on tensors by model/media_rows.h.
namespace llava {

enum class PoolMode { kNone, kAverage, kMax, kBilinear };
const char* to_string(PoolMode mode);

/// Where the `image_newline` vector goes (mm_newline_position of videos; images have kGrid or kEnd).
enum class Newline {
  kNone,   ///< no_token
  kGrid,   ///< at the right end of every row of the feature grid
  kFrame,  ///< after every frame
  kEnd,    ///< one_token: once, behind everything
};
const char* to_string(Newline newline);

/// Views: what the tower sees, in this order: an image's overview and tiles row by row, or a video's frames.
/// Grid: the features of all tiles (or of one frame) side by side.
struct MediaLayout {
  bool video = false;
  std::int64_t views = 1;
  /// The first view is the whole image and its features come first, without newlines.
  bool overview = false;
  /// Tiles of the big grid; 0: the views' features one after another as they are.
  std::int64_t tile_rows = 0, tile_columns = 0;
  /// Part of the grid that shows the image and not its padding.
  std::int64_t first_row = 0, rows = 0, first_column = 0, columns = 0;
  /// Size the part is shrunk to bilinearly (anyres_max_N); equal to rows, columns where it is not.
  std::int64_t capped_rows = 0, capped_columns = 0;
  PoolMode pool = PoolMode::kNone;  ///< of every frame, or of the big grid (maxpool2x2)
  std::int64_t pool_stride = 2;
  bool pool_first = false;  ///< before the connector (llava-hf's NeXT-Video), not after it
  Newline newline = Newline::kNone;
  /// Slow-fast (add_faster_video): every so many frames one is pooled by pool_stride, the others by twice that; a
  /// faster_token behind each. 0: all frames alike. `first_frame` is the number of the first view in its film.
  std::int64_t slow_every = 0, first_frame = 0;
  std::int64_t token_count = 0;  ///< rows of all this
  bool operator==(const MediaLayout&) const = default;
};

/// Side of a pooled grid: floor for average and max, ceil for bilinear (specification 1.5.3).
std::int64_t pooled_side(std::int64_t side, PoolMode mode, std::int64_t stride);

/// Whether a view is pooled by twice the stride.
bool is_fast(const MediaLayout& layout, std::int64_t view);
/// Rows of a video whose frames have a grid of side x side features.
std::int64_t video_token_count(const MediaLayout& layout, std::int64_t side);

}  // namespace llava
