#pragma once
#include <cstdint>
#include <string>

#include "base/fields.h"

namespace llava {

/// What each of several processes holds (docs/distributed.md).
///  ddp    everything; gradients are summed
///  zero1  its part of the optimizer's state
///  zero2  and its part of the gradients
///  zero3  and its part of the decoder layers' weights, which are gathered while a layer runs
enum class ShardStrategy { kDdp, kZero1, kZero2, kZero3 };

template <>
struct EnumTable<ShardStrategy> {
  static constexpr std::pair<const char*, ShardStrategy> names[] = {{"ddp", ShardStrategy::kDdp},
                                                                    {"zero1", ShardStrategy::kZero1},
                                                                    {"zero2", ShardStrategy::kZero2},
                                                                    {"zero3", ShardStrategy::kZero3}};
};

/// Used where several processes train; one alone ignores it.
struct DistributedConfig {
  ShardStrategy strategy = ShardStrategy::kDdp;
  std::int64_t bucket_bytes = std::int64_t{25} << 20;  ///< of gradients that travel together
  bool overlap = true;  ///< send a bucket while the backward pass goes on
  double timeout_seconds = 600;  ///< a collective that takes longer ends the run
  bool check = false;  ///< compare every collective between the processes first: slow, for finding a bug
};

template <class V>
void visit_fields(V& v, DistributedConfig& c) {
  v("strategy", c.strategy), v("bucket_bytes", c.bucket_bytes), v("overlap", c.overlap);
  v("timeout_seconds", c.timeout_seconds), v("check", c.check);
}

/// Error{kInput} naming a key whose value cannot work.
void check_distributed(const DistributedConfig& config);

}  // namespace llava
