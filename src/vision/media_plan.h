#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "config/image_policy.h"
#include "config/model_config.h"
#include "vision/anyres.h"
#include "vision/image.h"

namespace llava {

/// How one image becomes tiles and tokens; computed from its size alone, before any tensor exists.
struct MediaPlan {
  ImageSize original;
  std::int64_t num_tiles = 1;
  std::int64_t tile_height = 0, tile_width = 0;  ///< pixels of a tile
  std::int64_t token_count = 0;                  ///< image features spliced for it, exactly
  MediaLayout layout;                            ///< how the views' features become those tokens
  std::optional<AnyResPage> page;                ///< of an image that is tiled
  std::int64_t crops = 1;  ///< LLaVA-Mini: cut crops x crops before the processor, the whole image behind them
};

/// The plan of one of a prompt's `num_images` images. Error{kInput} if the model cannot take it.
MediaPlan plan_media(const ImageSize& size, const ImagePolicy& policy, const ModelConfig& model,
                     std::size_t num_images = 1);

/// The plan of a video of `frames` frames of one size, each of which goes through the processor alone, without
/// padding or tiles (specification 1.5.2). Part of a film: its frames from number `first_frame` on. Error{kInput}
/// without frames or a tower.
MediaPlan plan_video(const ImageSize& frame, std::int64_t frames, const ImagePolicy& policy,
                     const ModelConfig& model, std::int64_t first_frame = 0);

/// The uint8 tiles (after pad, resize, crop; before rescale and normalise), as the goldens hold them.
std::vector<Image> render_tiles(const Image& image, const MediaPlan& plan, const ImagePolicy& policy);

/// pixel_values of one tile: float32 CHW, rescaled and normalised as HF's slow processors do (<= 1e-6).
std::vector<float> normalise_tile(const Image& tile, const ImagePolicy& policy);

/// render_tiles + normalise_tile: float32 [num_tiles, 3, tile_height, tile_width], contiguous.
std::vector<float> render_pixels(const Image& image, const MediaPlan& plan, const ImagePolicy& policy);

/// preprocessor_config.json (CLIPImageProcessor, SiglipImageProcessor, BitImageProcessor…) as a policy.
/// Unknown processors whose maths we do not have are Error{kUnsupported}.
ImagePolicy image_policy_from_json(const Json& preprocessor_config);

/// Which side comes first in a file's image_grid_pinpoints: llava-hf's (height, width), the original code's
/// (width, height).
enum class PinpointOrder { kHeightWidth, kWidthHeight };
std::vector<GridPinpoint> grid_pinpoints_from_json(const Json& list, PinpointOrder order,
                                                   std::string_view what);

}  // namespace llava
