#include "base/rng.h"

#include <gtest/gtest.h>

namespace llava {
namespace {

// The first outputs of SplitMix64 for seed 1234567, from the algorithm's published test vector.
TEST(Rng, GivesThePublishedSplitMix64Sequence) {
  Rng rng(1234567);
  EXPECT_EQ(rng.next(), 6457827717110365317ULL);
  EXPECT_EQ(rng.next(), 3203168211198807973ULL);
  EXPECT_EQ(rng.next(), 9817491932198370423ULL);
}

TEST(Rng, ContinuesFromASavedState) {
  Rng a(5);
  a.next();
  Rng b;
  b.set_state(a.state());
  EXPECT_EQ(a.next(), b.next());
}

TEST(Rng, StaysInsideItsRanges) {
  Rng rng(1);
  for (int i = 0; i < 10000; ++i) {
    EXPECT_LT(rng.below(7), 7u);
    const double x = rng.uniform();
    EXPECT_TRUE(x >= 0 && x < 1);
  }
}

}  // namespace
}  // namespace llava
