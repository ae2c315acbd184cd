#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

namespace llava {

/// How a flattened tensor is cut between ranks: evenly, at multiples of kSliceGrain elements, so that blocks of
/// 8-bit optimizer states stay whole and a checkpoint fits another number of ranks. The last ranks' slices
/// may be shorter or empty.
inline constexpr std::int64_t kSliceGrain = 256;

/// Elements a rank has of a tensor of `numel`, padding counted.
inline std::int64_t slice_room(std::int64_t numel, int world) {
  const std::int64_t grain = kSliceGrain * world;
  return (numel + grain - 1) / grain * kSliceGrain;
}

struct Slice {
  std::int64_t begin = 0, length = 0;
};
/// The elements of the flattened tensor that `rank` has.
inline Slice slice_of(std::int64_t numel, int world, int rank) {
  const std::int64_t room = slice_room(numel, world), begin = std::min(numel, room * rank);
  return {begin, std::min(numel - begin, room)};
}

/// Copies a tensor's flattened elements into part [W,room] of a buffer, zeros behind them.
void put_in_slices(const at::Tensor& tensor, at::Tensor part);
/// The tensor [shape] whose slices lie in part [W,room]; a copy.
at::Tensor join_slices(const at::Tensor& part, at::IntArrayRef shape);

}  // namespace llava
