#include "vision/anyres.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace llava {

namespace {

constexpr double kMaxShrink = 1.1;  // anyres_max_N leaves a grid alone up to this factor a side

/// Python's a // b of two positive floats: exact where a / b would round up to a whole number.
std::int64_t floor_divide(double a, double b) {
  const double whole = (a - std::fmod(a, b)) / b;
  const double down = std::floor(whole);
  return static_cast<std::int64_t>(whole - down > 0.5 ? down + 1 : down);
}

/// int(round(x, 7)): truncation that forgives the last digits of a product.
std::int64_t truncate_forgiving(double x) {
  const double down = std::floor(x);
  return static_cast<std::int64_t>(x - down >= 1 - 5e-8 ? down + 1 : down);
}

/// Features to cut off on both sides of an axis of `cells` that shows `length` pixels at `scale` cells a
/// pixel.
std::int64_t padding_cells(std::int64_t cells, std::int64_t length, double scale) {
  return (cells - truncate_forgiving(static_cast<double>(length) * scale)) / 2;
}

/// Without the features of the page's black parts. The axis that the image fills stays whole.
void unpad(const ImageSize& size, MediaLayout& layout) {
  const auto width = static_cast<double>(size.width), height = static_cast<double>(size.height);
  const auto columns = static_cast<double>(layout.columns), rows = static_cast<double>(layout.rows);
  if (width / height > columns / rows) {
    layout.first_row = padding_cells(layout.rows, size.height, columns / width);
    layout.rows -= 2 * layout.first_row;
  } else {
    layout.first_column = padding_cells(layout.columns, size.width, rows / height);
    layout.columns -= 2 * layout.first_column;
  }
}

void cap(std::int64_t max_tiles, std::int64_t grid, MediaLayout& layout) {
  layout.capped_rows = layout.rows;
  layout.capped_columns = layout.columns;
  if (max_tiles <= 0) return;
  const double shrink = std::sqrt(static_cast<double>(layout.rows * layout.columns) /
                                  static_cast<double>(max_tiles * grid * grid));
  if (shrink <= kMaxShrink) return;
  layout.capped_rows = floor_divide(static_cast<double>(layout.rows), shrink);
  layout.capped_columns = floor_divide(static_cast<double>(layout.columns), shrink);
}

}  // namespace

ImageSize select_best_resolution(const ImageSize& size, const std::vector<GridPinpoint>& pinpoints) {
  if (pinpoints.empty()) fail(ErrorKind::kFormat, "anyres needs image_grid_pinpoints, and there are none");
  const auto width = static_cast<double>(size.width), height = static_cast<double>(size.height);
  ImageSize best;
  std::int64_t best_kept = 0, best_waste = std::numeric_limits<std::int64_t>::max();
  for (const GridPinpoint& pin : pinpoints) {
    const double scale =
        std::min(static_cast<double>(pin.width) / width, static_cast<double>(pin.height) / height);
    const auto scaled_width = static_cast<std::int64_t>(width * scale);
    const auto scaled_height = static_cast<std::int64_t>(height * scale);
    const std::int64_t kept = std::min(scaled_width * scaled_height, size.width * size.height);
    const std::int64_t waste = pin.width * pin.height - kept;
    if (kept > best_kept || (kept == best_kept && waste < best_waste)) {
      best = {pin.width, pin.height};
      best_kept = kept;
      best_waste = waste;
    }
  }
  return best;
}

AnyResPage anyres_page(const ImageSize& size, const std::vector<GridPinpoint>& pinpoints,
                       std::int64_t tile) {
  AnyResPage p;
  p.page = select_best_resolution(size, pinpoints);
  if (p.page.width % tile != 0 || p.page.height % tile != 0)
    fail(ErrorKind::kFormat, "image_grid_pinpoints: {} x {} (width x height) is no multiple of a view's {}",
         p.page.width, p.page.height, tile);
  p.rows = p.page.height / tile;
  p.columns = p.page.width / tile;
  const double scale_x = static_cast<double>(p.page.width) / static_cast<double>(size.width);
  const double scale_y = static_cast<double>(p.page.height) / static_cast<double>(size.height);
  const auto scaled = [](std::int64_t side, double scale, std::int64_t limit) {
    return std::min(static_cast<std::int64_t>(std::ceil(static_cast<double>(side) * scale)), limit);
  };
  p.resized = scale_x < scale_y ? ImageSize{p.page.width, scaled(size.height, scale_x, p.page.height)}
                                : ImageSize{scaled(size.width, scale_y, p.page.width), p.page.height};
  p.left = (p.page.width - p.resized.width) / 2;
  p.top = (p.page.height - p.resized.height) / 2;
  return p;
}

std::vector<TileGeometry> anyres_views(const ImageSize& size, const AnyResPage& page, std::int64_t tile) {
  TileGeometry view;
  view.framed = size;
  view.tile = view.resized = {tile, tile};
  std::vector<TileGeometry> views = {view};
  view.resized = page.resized;
  for (std::int64_t row = 0; row < page.rows; ++row)
    for (std::int64_t column = 0; column < page.columns; ++column) {
      view.left = column * tile - page.left;
      view.top = row * tile - page.top;
      views.push_back(view);
    }
  return views;
}

MediaLayout anyres_layout(const ImageSize& size, const AnyResPage& page, std::int64_t grid,
                          const MediaConfig& media) {
  MediaLayout layout;
  layout.views = 1 + page.rows * page.columns;
  const std::int64_t view = grid * grid;
  if (media.merge == TileMerge::kFlat) {
    layout.token_count = layout.views * view;
    return layout;
  }
  layout.overview = !media.nobase;
  layout.tile_rows = page.rows;
  layout.tile_columns = page.columns;
  layout.rows = page.rows * grid;
  layout.columns = page.columns * grid;
  if (media.max_pool) {
    layout.pool = PoolMode::kMax;
    layout.capped_rows = pooled_side(layout.rows, layout.pool, layout.pool_stride);
    layout.capped_columns = pooled_side(layout.columns, layout.pool, layout.pool_stride);
  } else {
    if (media.merge == TileMerge::kSpatialUnpad) {
      unpad(size, layout);
      layout.newline = Newline::kGrid;
    }
    cap(media.merge == TileMerge::kSpatialUnpad ? media.max_tiles : 0, grid, layout);
  }
  layout.token_count = (layout.overview ? view : 0) +
                       layout.capped_rows * (layout.capped_columns + (layout.newline == Newline::kGrid));
  return layout;
}

}  // namespace llava
