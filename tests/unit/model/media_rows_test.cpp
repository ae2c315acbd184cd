// The way from views to rows, where no golden reaches (specification 1.5.4, 1.5.5).
#include "model/media_rows.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace llava {
namespace {

at::Tensor plain(const at::Tensor& x) { return x; }

MediaLayout film(std::int64_t frames, Newline newline) {
  MediaLayout layout{.video = true, .views = frames, .pool = PoolMode::kAverage, .pool_stride = 2, .newline = newline};
  layout.token_count = video_token_count(layout, 4);
  return layout;
}

at::Tensor features(std::int64_t frames) {
  torch::manual_seed(3);
  return torch::randn({frames, 16, 5});
}

const MediaTokens kTokens = {at::full({5}, 100.0), at::full({5}, 200.0)};

TEST(VideoRows, NewlinesStandWhereTheConfigSays) {
  const at::Tensor frames = features(3), pooled = pool_grids(frames, PoolMode::kAverage, 2);
  ASSERT_EQ(pooled.sizes(), (at::IntArrayRef{3, 4, 5}));
  const auto rows = [&](Newline newline) { return media_rows(frames, {film(3, newline)}, plain, kTokens); };
  EXPECT_TRUE(at::equal(rows(Newline::kNone), pooled.flatten(0, 1)));
  const at::Tensor end = rows(Newline::kEnd);
  EXPECT_TRUE(at::equal(end.slice(0, 0, 12), pooled.flatten(0, 1)));
  EXPECT_TRUE(at::equal(end[12], kTokens.newline));
  const at::Tensor frame = rows(Newline::kFrame).view({3, 5, 5});
  EXPECT_TRUE(at::equal(frame.slice(1, 0, 4), pooled));
  EXPECT_TRUE(at::equal(frame.select(1, 4), kTokens.newline.expand({3, 5})));
  const at::Tensor grid = rows(Newline::kGrid).view({3, 2, 3, 5});
  EXPECT_TRUE(at::equal(grid.slice(2, 0, 2).reshape({3, 4, 5}), pooled));
  EXPECT_TRUE(at::equal(grid.select(2, 2), kTokens.newline.expand({3, 2, 5})));
}

TEST(VideoRows, SlowFastPoolsMostFramesTwiceAsMuch) {
  MediaLayout layout = film(3, Newline::kGrid);
  layout.slow_every = 2;
  layout.token_count = video_token_count(layout, 4);
  EXPECT_EQ(layout.token_count, 7 + 3 + 7);  // 2 rows of 2 and newlines, faster_token; 1 and newline, faster_token; …
  const at::Tensor frames = features(3), rows = media_rows(frames, {layout}, plain, kTokens);
  EXPECT_TRUE(at::equal(rows[6], kTokens.faster));
  EXPECT_TRUE(at::allclose(rows[7], frames[1].mean(0)));
  EXPECT_TRUE(at::equal(rows[8], kTokens.newline));
  EXPECT_TRUE(at::equal(rows[9], kTokens.faster));
  EXPECT_TRUE(at::equal(rows[16], kTokens.faster));
}

TEST(VideoRows, AFilmInPiecesIsTheFilm) {
  MediaLayout whole = film(5, Newline::kFrame);
  whole.slow_every = 3;
  whole.token_count = video_token_count(whole, 4);
  const at::Tensor frames = features(5), expected = media_rows(frames, {whole}, plain, kTokens);
  std::vector<at::Tensor> parts;
  for (const auto& [first, count] : {std::pair<std::int64_t, std::int64_t>{0, 2}, {2, 3}}) {
    MediaLayout part = whole;
    part.first_frame = first;
    part.views = count;
    part.token_count = video_token_count(part, 4);
    parts.push_back(media_rows(frames.narrow(0, first, count), {part}, plain, kTokens));
  }
  EXPECT_TRUE(at::equal(at::cat(parts), expected));
}

}  // namespace
}  // namespace llava
