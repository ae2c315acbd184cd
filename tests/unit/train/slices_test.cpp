#include "train/slices.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace llava {
namespace {

TEST(Slices, CoverATensorOnceAndBeginAtWholeBlocks) {
  for (const std::int64_t numel : {1, 255, 256, 257, 1000, 4096, 100003})
    for (int world = 1; world <= 9; ++world) {
      std::int64_t next = 0;
      for (int rank = 0; rank < world; ++rank) {
        const Slice slice = slice_of(numel, world, rank);
        EXPECT_EQ(slice.begin, next);
        EXPECT_LE(slice.length, slice_room(numel, world));
        if (slice.length > 0) {
          EXPECT_EQ(slice.begin % kSliceGrain, 0);
        }
        next += slice.length;
      }
      EXPECT_EQ(next, numel) << world;
      EXPECT_LT(slice_room(numel, world) * world, numel + kSliceGrain * world);
    }
}

TEST(Slices, PutAndJoinedATensorIsTheSame) {
  for (const int world : {1, 2, 3, 5}) {
    const at::Tensor tensor = at::arange(7 * 301, at::kFloat).view({7, 301});
    const std::int64_t room = slice_room(tensor.numel(), world);
    const at::Tensor buffer = at::full({world, 10 + room}, -1.0);
    put_in_slices(tensor, buffer.narrow(1, 10, room));
    EXPECT_TRUE(at::equal(join_slices(buffer.narrow(1, 10, room), tensor.sizes()), tensor));
    EXPECT_TRUE(buffer.narrow(1, 0, 10).eq(-1).all().item<bool>()) << "the neighbours stay";
    for (int rank = 0; rank < world; ++rank) {
      const Slice slice = slice_of(tensor.numel(), world, rank);
      EXPECT_TRUE(at::equal(buffer[rank].narrow(0, 10, slice.length),
                            tensor.view(-1).narrow(0, slice.begin, slice.length)));
      EXPECT_TRUE(buffer[rank].slice(0, 10 + slice.length).eq(0).all().item<bool>()) << "zeros behind";
    }
  }
}

}  // namespace
}  // namespace llava
