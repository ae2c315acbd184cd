#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "vision/video.h"

namespace llava {
namespace {

using Indices = std::vector<std::int64_t>;

TEST(FrameSampling, TakesEverySecondsFirstFrame) {
  const FramePick pick = pick_frames(95, 29.97, {});
  EXPECT_EQ(pick.indices, (Indices{0, 30, 60, 90}));
  EXPECT_EQ(pick.times, (std::vector<double>{0, 1, 2, 3}));  // index / rounded step, not index / fps
  EXPECT_NEAR(pick.duration, 95 / 29.97, 1e-12);
}

TEST(FrameSampling, MiddlesOfEqualPartsRoundHalvesToEven) {
  // seg = 9/4: edges 0, 2.25->2, 4.5->4, 6.75->7, 9
  EXPECT_EQ(pick_frames(10, 2.5, {.midpoints = true}).indices, (Indices{1, 3, 5, 8}));
  EXPECT_EQ(pick_frames(10, 30, {.midpoints = true}).indices, (Indices{4}));  // less than a second
  EXPECT_EQ(pick_frames(100, 25, {.max_frames = 2, .force_sample = true, .midpoints = true}).indices.size(), 2U);
}

TEST(FrameSampling, SpreadsTooManyFramesOverTheWholeFilmCuttingFractions) {
  const FramePick pick = pick_frames(101, 10, {.fps = 1, .max_frames = 4});
  EXPECT_EQ(pick.indices, (Indices{0, 33, 66, 100}));
  EXPECT_DOUBLE_EQ(pick.times[1], 3.3);
}

TEST(FrameSampling, ForcedItSpreadsFewOnesTooAndMayRepeat) {
  EXPECT_EQ(pick_frames(3, 1, {.max_frames = 5, .force_sample = true}).indices, (Indices{0, 0, 1, 1, 2}));
  EXPECT_EQ(pick_frames(9, 1, {.max_frames = 1, .force_sample = true}).indices, (Indices{0}));
}

TEST(FrameSampling, RoundsTheStepHalfToEvenAndNeverToZero) {
  EXPECT_EQ(pick_frames(10, 2.5, {}).indices, (Indices{0, 2, 4, 6, 8}));
  EXPECT_EQ(pick_frames(8, 3.5, {}).indices, (Indices{0, 4}));
  EXPECT_EQ(pick_frames(3, 0.2, {}).indices, (Indices{0, 1, 2}));
}

TEST(FrameSampling, AlwaysAscendsInsideTheFilm) {
  for (std::int64_t total = 1; total < 400; total += 7)
    for (const double fps : {0.1, 1.0, 12.5, 23.976, 59.94})
      for (std::int64_t bound = 0; bound < 40; bound += 3) {
        const FramePick pick = pick_frames(total, fps, {.max_frames = bound});
        ASSERT_FALSE(pick.indices.empty());
        ASSERT_EQ(pick.indices.size(), pick.times.size());
        if (bound > 0) {
          ASSERT_LE(static_cast<std::int64_t>(pick.indices.size()), bound);
        }
        ASSERT_TRUE(std::is_sorted(pick.indices.begin(), pick.indices.end()));
        ASSERT_GE(pick.indices.front(), 0);
        ASSERT_LT(pick.indices.back(), total);
      }
}

TEST(FrameSampling, RefusesFilmsWithoutFramesOrRate) {
  EXPECT_THROW(pick_frames(0, 25, {}), Error);
  EXPECT_THROW(pick_frames(5, 0, {}), Error);
  EXPECT_THROW(pick_frames(5, NAN, {}), Error);
  EXPECT_THROW(pick_frames(5, 25, {.fps = 0}), Error);
}

TEST(TimeInstruction, HasTheOriginalsWords) {
  EXPECT_EQ(time_instruction(pick_frames(101, 10, {.fps = 1, .max_frames = 3})),
            "The video lasts for 10.10 seconds, and 3 frames are uniformly sampled from it. These frames are located at "
            "0.00s,5.00s,10.00s.Please answer the following questions related to this video.");
}

}  // namespace
}  // namespace llava
