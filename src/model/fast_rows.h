#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "config/model_config.h"
#include "model/attention.h"
#include "model/batch.h"
#include "model/fused_block.h"
#include "model/rope.h"

namespace llava {

/// A batch as fused blocks see it: its real tokens one behind the other, without padding. N tokens.
struct FastRows {
  at::Tensor index;                                 ///< [N] flat positions b*T+t; undefined: all of them
  std::shared_ptr<const fused::BlockContext> full;  ///< for blocks that see everything before
  std::shared_ptr<const fused::BlockContext> windowed;

  at::Tensor gather(const at::Tensor& x) const;                           ///< [B,T,D] -> [N,D]
  at::Tensor scatter(const at::Tensor& x, const at::Tensor& like) const;  ///< back; zeros at padding
};

/// `window`: 0 or the sliding window of some blocks. Null where fused blocks cannot do what the batch asks for: samples
/// in one row that are longer than the window.
std::unique_ptr<FastRows> plan_fast_rows(const DecoderConfig& config, const MultimodalBatch& batch,
                                         const RopeTable& rope, const at::Tensor& like, std::int64_t window);

}  // namespace llava
