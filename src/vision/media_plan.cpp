#include "vision/media_plan.h"

#include <algorithm>

#include "vision/resample.h"
#include "vision/tile_geometry.h"

namespace llava {

namespace {

/// The part of the resized axis that the tile shows, and where it starts in the tile.
struct Overlap {
  std::int64_t begin = 0, length = 0, tile_begin = 0;
};

Overlap overlap(std::int64_t resized, std::int64_t tile, std::int64_t offset) {
  const std::int64_t begin = std::max<std::int64_t>(offset, 0);
  const std::int64_t end = std::min(resized, offset + tile);
  return {begin, std::max<std::int64_t>(end - begin, 0), begin - offset};
}

Image render_tile(const Image& image, const TileGeometry& g, const ImagePolicy& policy) {
  const Overlap x = overlap(g.resized.width, g.tile.width, g.left);
  const Overlap y = overlap(g.resized.height, g.tile.height, g.top);
  ResampleJob job;
  job.x = {image.width,     g.frame_left, g.framed.width - image.width - g.frame_left,
           g.resized.width, x.begin,      x.length};
  job.y = {image.height,     g.frame_top, g.framed.height - image.height - g.frame_top,
           g.resized.height, y.begin,     y.length};
  job.filter = policy.resample;
  for (std::size_t c = 0; c < 3; ++c)  // the mean colour, truncated: tuple(int(x * 255)) of expand2square
    job.frame_colour[c] = static_cast<std::uint8_t>(std::clamp(policy.mean[c] * 255.0, 0.0, 255.0));
  Image part = resample(image, job);
  if (ImageSize{part.width, part.height} == g.tile) return part;
  Image tile{g.tile.width, g.tile.height, {}};
  tile.rgb.assign(static_cast<std::size_t>(tile.width * tile.height * 3), 0);
  for (std::int64_t row = 0; row < part.height; ++row)
    std::copy_n(part.rgb.begin() + row * part.width * 3, part.width * 3,
                tile.rgb.begin() + ((row + y.tile_begin) * tile.width + x.tile_begin) * 3);
  return tile;
}

}  // namespace

MediaPlan plan_media(const ImageSize& size, const ImagePolicy& policy, const ModelConfig& model) {
  if (!model.tower) fail(ErrorKind::kInput, "this model has no vision tower, so it cannot take images");
  const TileGeometry g = tile_geometry(size, policy);
  const std::int64_t side = model.tower->input_size;
  if (g.tile != ImageSize{side, side})
    fail(ErrorKind::kInput,
         "an image of {} x {} is preprocessed to {} x {}, but the vision tower takes {} x {}", size.width,
         size.height, g.tile.width, g.tile.height, side, side);
  return {.original = size,
          .num_tiles = 1,
          .tile_height = g.tile.height,
          .tile_width = g.tile.width,
          .token_count = model.num_image_tokens()};
}

std::vector<Image> render_tiles(const Image& image, const MediaPlan& plan, const ImagePolicy& policy) {
  const ImageSize size{image.width, image.height};
  const TileGeometry g = tile_geometry(size, policy);
  LLAVA_ASSERT(plan.original == size, "the plan is of another image");
  LLAVA_ASSERT(plan.num_tiles == 1 && g.tile == (ImageSize{plan.tile_width, plan.tile_height}),
               "the plan is of another policy");
  return {render_tile(image, g, policy)};
}

namespace {

/// What each byte value of a channel becomes: 256 entries. HF rescales in double and rounds to float, then
/// subtracts and divides in float.
std::array<float, 256> channel_values(const ImagePolicy& policy, std::size_t channel) {
  std::array<float, 256> values{};
  const auto mean = static_cast<float>(policy.mean[channel]),
             deviation = static_cast<float>(policy.std[channel]);
  for (std::size_t byte = 0; byte < values.size(); ++byte) {
    float value = policy.do_rescale ? static_cast<float>(static_cast<double>(byte) * policy.rescale_factor)
                                    : static_cast<float>(byte);
    if (policy.do_normalize) value = (value - mean) / deviation;
    values[byte] = value;
  }
  return values;
}

void normalise_into(const Image& tile, const ImagePolicy& policy, float* out) {
  const auto pixels = static_cast<std::size_t>(tile.width * tile.height);
  for (std::size_t c = 0; c < 3; ++c) {
    const std::array<float, 256> values = channel_values(policy, c);
    const std::uint8_t* in = tile.rgb.data() + c;
    for (std::size_t i = 0; i < pixels; ++i) *out++ = values[in[3 * i]];
  }
}

}  // namespace

std::vector<float> normalise_tile(const Image& tile, const ImagePolicy& policy) {
  std::vector<float> out(static_cast<std::size_t>(tile.width * tile.height) * 3);
  normalise_into(tile, policy, out.data());
  return out;
}

std::vector<float> render_pixels(const Image& image, const MediaPlan& plan, const ImagePolicy& policy) {
  const std::vector<Image> tiles = render_tiles(image, plan, policy);
  const auto tile_values = static_cast<std::size_t>(plan.tile_height * plan.tile_width) * 3;
  std::vector<float> out(tiles.size() * tile_values);
  for (std::size_t i = 0; i < tiles.size(); ++i)
    normalise_into(tiles[i], policy, out.data() + i * tile_values);
  return out;
}

}  // namespace llava
