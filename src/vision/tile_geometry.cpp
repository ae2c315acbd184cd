#include "vision/tile_geometry.h"

#include <algorithm>

namespace llava {

namespace {

constexpr std::int64_t kMaxTileSide = 8192;

/// Rounds towards minus infinity: a crop larger than the image starts before it, with the odd pixel in
/// front (HF).
std::int64_t floor_half(std::int64_t x) { return x >= 0 ? x / 2 : -((1 - x) / 2); }

/// HF's get_resize_output_image_size: the long side is truncated, after one correctly rounded division.
ImageSize shortest_edge_size(const ImageSize& size, std::int64_t edge) {
  const auto [shorter, longer] = std::minmax(size.width, size.height);
  const auto resized =
      static_cast<std::int64_t>(static_cast<double>(edge * longer) / static_cast<double>(shorter));
  return size.width <= size.height ? ImageSize{edge, resized} : ImageSize{resized, edge};
}

}  // namespace

TileGeometry tile_geometry(const ImageSize& size, const ImagePolicy& policy) {
  if (size.width <= 0 || size.height <= 0)
    fail(ErrorKind::kInput, "an image of {} x {}", size.width, size.height);
  TileGeometry g;
  g.framed = size;
  if (policy.aspect_ratio == AspectRatio::kPad) {
    const std::int64_t side = std::max(size.width, size.height);
    g.framed = {side, side};
    g.frame_left = (side - size.width) / 2;
    g.frame_top = (side - size.height) / 2;
  }
  switch (policy.resize) {
    case ResizeMode::kNone:
      g.resized = g.framed;
      break;
    case ResizeMode::kShortestEdge:
      g.resized = shortest_edge_size(g.framed, policy.resize_height);
      break;
    case ResizeMode::kSquash:
      g.resized = {policy.resize_width, policy.resize_height};
      break;
  }
  g.tile = policy.center_crop ? ImageSize{policy.crop_width, policy.crop_height} : g.resized;
  if (std::min(g.tile.width, g.tile.height) < 1 || std::max(g.tile.width, g.tile.height) > kMaxTileSide)
    fail(ErrorKind::kInput, "an image of {} x {} would be preprocessed to {} x {}; a side may be 1 to {}",
         size.width, size.height, g.tile.width, g.tile.height, kMaxTileSide);
  g.left = floor_half(g.resized.width - g.tile.width);
  g.top = floor_half(g.resized.height - g.tile.height);
  return g;
}

}  // namespace llava
