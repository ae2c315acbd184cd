#pragma once
#include "config/image_policy.h"
#include "vision/image.h"

namespace llava {

/// Where an image's pixels go under a policy without tiling: framed to `framed`, resized to `resized`, of
/// which the tile shows the part at (left, top), which may lie outside (zeros there).
struct TileGeometry {
  ImageSize framed;
  std::int64_t frame_left = 0, frame_top = 0;
  ImageSize resized;
  ImageSize tile;
  std::int64_t left = 0, top = 0;
};

/// Error{kInput} for an empty image or a tile of no or absurd size.
TileGeometry tile_geometry(const ImageSize& size, const ImagePolicy& policy);

}  // namespace llava
