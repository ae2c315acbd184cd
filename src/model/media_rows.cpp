#include "model/media_rows.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace llava {

namespace {

std::int64_t grid_side(const at::Tensor& views) {
  const auto side = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(views.size(1)))));
  if (side * side != views.size(1))
    fail(ErrorKind::kUnsupported, "{} features of a view are no square grid (class tokens cannot be tiled)",
         views.size(1));
  return side;
}

at::Tensor pool(const at::Tensor& grids, PoolMode mode, std::int64_t stride) {
  switch (mode) {
    case PoolMode::kNone:
      return grids;
    case PoolMode::kAverage:
      return at::avg_pool2d(grids, {stride, stride}, {stride, stride});
    case PoolMode::kMax:
      return at::max_pool2d(grids, {stride, stride}, {stride, stride});
    case PoolMode::kBilinear:
      return at::upsample_bilinear2d(grids,
                                     {pooled_side(grids.size(2), mode, stride),
                                      pooled_side(grids.size(3), mode, stride)},
                                     /*align_corners=*/false);
  }
  return grids;
}

/// [D,rows,columns] -> [rows*(columns+1),D]: the newline behind every row.
at::Tensor with_newlines(const at::Tensor& grid, const at::Tensor& newline) {
  const at::Tensor column = newline.to(grid.scalar_type()).view({-1, 1, 1}).expand({-1, grid.size(1), 1});
  return at::cat({grid, column}, 2).flatten(1).t();
}

at::Tensor newline_row(const at::Tensor& newline, const at::Tensor& like) {
  return newline.to(like.scalar_type()).unsqueeze(0);
}

/// The tiles [R*C,P,D] as one grid [D,R*g,C*g].
at::Tensor join_tiles(const at::Tensor& tiles, const MediaLayout& layout) {
  const std::int64_t side = grid_side(tiles);
  return tiles.view({layout.tile_rows, layout.tile_columns, side, side, -1})
      .permute({4, 0, 2, 1, 3})
      .reshape({tiles.size(2), layout.tile_rows * side, layout.tile_columns * side});
}

at::Tensor tiled_rows(const at::Tensor& views, const MediaLayout& layout, const at::Tensor& newline) {
  at::Tensor grid = join_tiles(views.slice(0, 1), layout);
  grid = grid.narrow(1, layout.first_row, layout.rows).narrow(2, layout.first_column, layout.columns);
  if (layout.pool != PoolMode::kNone) {
    grid = pool(grid.unsqueeze(0), layout.pool, layout.pool_stride).squeeze(0);
  } else if (layout.capped_rows != layout.rows || layout.capped_columns != layout.columns) {
    grid = at::upsample_bilinear2d(grid.unsqueeze(0), {layout.capped_rows, layout.capped_columns}, false)
               .squeeze(0);
  }
  at::Tensor rows = layout.newline == Newline::kGrid ? with_newlines(grid, newline) : grid.flatten(1).t();
  return layout.overview ? at::cat({views[0], rows}) : rows;
}

/// [F,P,D] -> [F,P',D]: a newline behind every row of a frame, or behind the frame.
at::Tensor frames_with_newlines(const at::Tensor& frames, Newline where, const at::Tensor& newline) {
  if (where != Newline::kGrid && where != Newline::kFrame) return frames;
  const std::int64_t side = where == Newline::kGrid ? grid_side(frames) : frames.size(1);
  const at::Tensor rows = frames.view({-1, side, frames.size(2)});
  const at::Tensor behind = newline_row(newline, frames).unsqueeze(0).expand({rows.size(0), 1, rows.size(2)});
  return at::cat({rows, behind}, 1).view({frames.size(0), -1, frames.size(2)});
}

at::Tensor slow_fast_rows(const at::Tensor& frames, const MediaLayout& layout, const MediaTokens& tokens) {
  std::vector<at::Tensor> parts;
  for (std::int64_t i = 0; i < frames.size(0); ++i) {
    const std::int64_t stride = layout.pool_stride * (is_fast(layout, i) ? 2 : 1);
    parts.push_back(
        frames_with_newlines(pool_grids(frames.narrow(0, i, 1), layout.pool, stride), layout.newline, tokens.newline)[0]);
    parts.push_back(newline_row(tokens.faster, frames));
  }
  return at::cat(parts);
}

at::Tensor video_rows(const at::Tensor& frames, const MediaLayout& layout, const MediaTokens& tokens) {
  at::Tensor rows;
  if (layout.slow_every > 0) {
    rows = slow_fast_rows(frames, layout, tokens);
  } else {
    const at::Tensor pooled = layout.pool_first ? frames : pool_grids(frames, layout.pool, layout.pool_stride);
    rows = frames_with_newlines(pooled, layout.newline, tokens.newline).flatten(0, 1);
  }
  return layout.newline == Newline::kEnd ? at::cat({rows, newline_row(tokens.newline, rows)}) : rows;
}

at::Tensor item_rows(const at::Tensor& views, const MediaLayout& layout, const MediaTokens& tokens) {
  const at::Tensor& newline = tokens.newline;
  if (layout.newline != Newline::kNone && !newline.defined())
    fail(ErrorKind::kFormat, "the model has no image_newline vector, which its way of tiling needs");
  at::Tensor rows;
  if (layout.video) {
    rows = video_rows(views, layout, tokens);
  } else if (layout.tile_rows > 0) {
    rows = tiled_rows(views, layout, newline);
  } else {
    rows = views.flatten(0, 1);
    if (layout.newline == Newline::kEnd) rows = at::cat({rows, newline_row(newline, rows)});
  }
  if (rows.size(0) != layout.token_count)
    fail(ErrorKind::kInternal, "an image or video was planned with {} tokens and gives {}",
         layout.token_count, rows.size(0));
  return rows;
}

}  // namespace

at::Tensor pool_grids(const at::Tensor& features, PoolMode mode, std::int64_t stride) {
  if (mode == PoolMode::kNone) return features;
  const std::int64_t side = grid_side(features);
  const at::Tensor grids = features.view({-1, side, side, features.size(2)}).permute({0, 3, 1, 2});
  return pool(grids, mode, stride).flatten(2).transpose(1, 2);
}

at::Tensor media_rows(const at::Tensor& features, const std::vector<MediaLayout>& layouts,
                      const std::function<at::Tensor(const at::Tensor&)>& project,
                      const MediaTokens& tokens) {
  std::int64_t views = 0;
  for (const MediaLayout& layout : layouts) views += layout.views;
  if (views != features.size(0))
    fail(ErrorKind::kInternal, "the layouts of the media have {} views, there are features of {}", views,
         features.size(0));
  const bool together = std::none_of(layouts.begin(), layouts.end(),
                                     [](const MediaLayout& layout) { return layout.pool_first; });
  const at::Tensor projected = together ? project(features) : at::Tensor();
  std::vector<at::Tensor> rows;
  std::int64_t first = 0;
  for (const MediaLayout& layout : layouts) {
    at::Tensor own = (together ? projected : features).narrow(0, first, layout.views);
    if (layout.pool_first) own = pool_grids(own, layout.pool, layout.pool_stride);
    rows.push_back(item_rows(together ? own : project(own), layout, tokens));
    first += layout.views;
  }
  return at::cat(rows);
}

}  // namespace llava
