#include "vision/media_plan.h"

#include <algorithm>

#include "vision/resample.h"
#include "vision/scratch.h"
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

Image black(const ImageSize& size) {
  Image image{size.width, size.height, {}};
  image.rgb.assign(static_cast<std::size_t>(size.width * size.height * 3), 0);
  return image;
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
  if (x.length <= 0 || y.length <= 0) return black(g.tile);
  for (std::size_t c = 0; c < 3; ++c)  // the mean colour, truncated: tuple(int(x * 255)) of expand2square
    job.frame_colour[c] = static_cast<std::uint8_t>(std::clamp(policy.mean[c] * 255.0, 0.0, 255.0));
  Image part = resample(image, job);
  if (ImageSize{part.width, part.height} == g.tile) return part;
  Image tile = black(g.tile);
  for (std::int64_t row = 0; row < part.height; ++row)
    std::copy_n(part.rgb.begin() + row * part.width * 3, part.width * 3,
                tile.rgb.begin() + ((row + y.tile_begin) * tile.width + x.tile_begin) * 3);
  return tile;
}

}  // namespace

namespace {

/// The processor of a single view: several images in one prompt are padded where the model tiles single
/// ones only.
ImagePolicy single_view(ImagePolicy policy) {
  if (policy.aspect_ratio == AspectRatio::kAnyRes) policy.aspect_ratio = AspectRatio::kPad;
  return policy;
}

void plan_single_view(const ModelConfig& model, MediaPlan& plan) {
  if (model.compressor) {
    const std::int64_t crops = model.compressor->resolution_ratio;
    if (std::min(plan.original.width, plan.original.height) < crops)
      fail(ErrorKind::kInput, "an image of {} x {} cannot be cut {} x {}", plan.original.width,
           plan.original.height, crops, crops);
    plan.crops = crops;
    plan.layout.views = model.compressor->num_views();
    plan.layout.token_count = model.compressor->num_tokens();
    return;
  }
  plan.layout.token_count = model.num_image_tokens();
  if (model.media.merge == TileMerge::kSpatialUnpad && model.media.image_newline) {
    plan.layout.newline = Newline::kEnd;
    ++plan.layout.token_count;
  }
}

}  // namespace

MediaPlan plan_media(const ImageSize& size, const ImagePolicy& policy, const ModelConfig& model,
                     std::size_t num_images) {
  if (!model.tower) fail(ErrorKind::kInput, "this model has no vision tower, so it cannot take images");
  const std::int64_t side = model.tower->input_size;
  const bool tiled = policy.aspect_ratio == AspectRatio::kAnyRes &&
                     !(model.media.tile_single_images_only && num_images > 1);
  const TileGeometry g = tile_geometry(size, tiled ? policy : single_view(policy));
  if (g.tile != ImageSize{side, side})
    fail(ErrorKind::kInput,
         "an image of {} x {} is preprocessed to {} x {}, but the vision tower takes {} x {}", size.width,
         size.height, g.tile.width, g.tile.height, side, side);
  MediaPlan plan{.original = size, .tile_height = side, .tile_width = side};
  if (tiled) {
    plan.page = anyres_page(size, policy.grid_pinpoints, side);
    plan.layout = anyres_layout(size, *plan.page, model.tower->grid() / model.connector.patch_merge,
                                model.media);
  } else {
    plan_single_view(model, plan);
  }
  plan.num_tiles = plan.layout.views;
  plan.token_count = plan.layout.token_count;
  return plan;
}

MediaPlan plan_video(const ImageSize& frame, std::int64_t frames, const ImagePolicy& policy,
                     const ModelConfig& model, std::int64_t first_frame) {
  if (frames < 1) fail(ErrorKind::kInput, "a video of {} frames", frames);
  ImagePolicy each = policy;
  each.aspect_ratio = AspectRatio::kSquare;
  MediaPlan plan = plan_media(frame, each, model);
  const MediaConfig& media = model.media;
  MediaLayout& layout = plan.layout;
  layout = {.video = true, .views = frames * (model.compressor ? model.compressor->num_views() : 1)};
  layout.pool = media.video_pool;
  layout.pool_stride = media.video_pool_stride;
  layout.pool_first = media.video_pool_first;
  layout.newline = media.video_newline;
  layout.slow_every = media.faster_token_stride;
  layout.first_frame = first_frame;
  if (model.compressor) {
    layout.token_count = frames * model.compressor->num_tokens();
  } else if (layout.pool == PoolMode::kNone && layout.newline == Newline::kNone && layout.slow_every == 0) {
    layout.token_count = frames * model.num_image_tokens();  // a class token, too
  } else {
    layout.token_count = video_token_count(layout, model.tower->grid() / model.connector.patch_merge);
  }
  plan.num_tiles = layout.views;
  plan.token_count = layout.token_count;
  return plan;
}

namespace {

Image cut(const Image& image, std::int64_t left, std::int64_t top, const ImageSize& size) {
  Image part = black(size);
  for (std::int64_t row = 0; row < size.height; ++row)
    std::copy_n(image.rgb.begin() + ((top + row) * image.width + left) * 3, size.width * 3,
                part.rgb.begin() + row * size.width * 3);
  return part;
}

/// Each of n x n equal parts (what the division leaves over at the right and below is dropped) and the whole,
/// through the processor on their own.
std::vector<Image> render_crops(const Image& image, std::int64_t n, const ImagePolicy& policy) {
  const ImageSize part{image.width / n, image.height / n};
  std::vector<Image> tiles;
  for (std::int64_t i = 0; i < n * n; ++i)
    tiles.push_back(render_tile(cut(image, i % n * part.width, i / n * part.height, part),
                                tile_geometry(part, policy), policy));
  tiles.push_back(render_tile(image, tile_geometry({image.width, image.height}, policy), policy));
  return tiles;
}

}  // namespace

std::vector<Image> render_tiles(const Image& image, const MediaPlan& plan, const ImagePolicy& policy) {
  const ImageSize size{image.width, image.height};
  LLAVA_ASSERT(plan.original == size, "the plan is of another image");
  if (plan.crops > 1) return render_crops(image, plan.crops, policy);
  std::vector<TileGeometry> views = plan.page
                                        ? anyres_views(size, *plan.page, plan.tile_height)
                                        : std::vector<TileGeometry>{tile_geometry(size, single_view(policy))};
  LLAVA_ASSERT(static_cast<std::int64_t>(views.size()) == plan.num_tiles &&
                   views.front().tile == (ImageSize{plan.tile_width, plan.tile_height}),
               "the plan is of another policy");
  std::vector<Image> tiles;
  for (const TileGeometry& view : views) tiles.push_back(render_tile(image, view, policy));
  return tiles;
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
  std::vector<Image> tiles = render_tiles(image, plan, policy);
  const auto tile_values = static_cast<std::size_t>(plan.tile_height * plan.tile_width) * 3;
  std::vector<float> out(tiles.size() * tile_values);
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    normalise_into(tiles[i], policy, out.data() + i * tile_values);
    keep_scratch(std::move(tiles[i].rgb));
  }
  return out;
}

}  // namespace llava
