#pragma once
#include <vector>

#include "config/image_policy.h"
#include "config/model_config.h"
#include "vision/image.h"
#include "vision/tile_geometry.h"

/// AnyRes (LLaVA-NeXT, OneVision): an overview of the whole image and tiles of an enlarged copy. Three
/// different roundings are part of it (specification 1.4.1, 1.4.2, 1.4.4).
namespace llava {

/// The pinpoint that keeps most of the image's pixels, and of those the one that wastes least; the first in
/// the list on a tie. Error{kFormat} for an empty list.
ImageSize select_best_resolution(const ImageSize& size, const std::vector<GridPinpoint>& pinpoints);

/// The enlarged copy on its black page.
struct AnyResPage {
  ImageSize page;                       ///< the chosen pinpoint
  ImageSize resized;                    ///< the copy on it, centred
  std::int64_t left = 0, top = 0;       ///< where the copy lies on the page
  std::int64_t rows = 0, columns = 0;   ///< tiles
};

/// Error{kFormat} if a pinpoint is no multiple of the tile's side.
AnyResPage anyres_page(const ImageSize& size, const std::vector<GridPinpoint>& pinpoints, std::int64_t tile);

/// What each view shows: the overview (squashed to a square, no padding), then the tiles row by row.
std::vector<TileGeometry> anyres_views(const ImageSize& size, const AnyResPage& page, std::int64_t tile);

/// How the views' features become rows of the prompt. `grid`: features along the side of a view.
MediaLayout anyres_layout(const ImageSize& size, const AnyResPage& page, std::int64_t grid,
                          const MediaConfig& media);

}  // namespace llava
