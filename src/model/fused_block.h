#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <memory>

#include "model/attention_kernel.h"
#include "model/weights.h"

/// A whole decoder block as one differentiable operation on a CPU: fewer passes over memory, one product for
/// q, k and v and one for gate and up, low-rank pairs folded into the matrices, attention by attention_kernel.h,
/// and only the values kept that the backward pass cannot make cheaply.
///
/// All arithmetic is float32. A bfloat16 model's matrices are widened as they are used where the machine has no
/// fast bfloat16 products (native_bfloat16()); what is kept for the backward pass is bfloat16.
namespace llava::fused {

/// Whether this machine multiplies bfloat16 matrices faster than float32 ones: it has AMX, or AMD's AVX-512
/// with bfloat16 (Intel's without AMX is slower than float32). By CPU model, not by a clock: a resumed run must choose alike.
bool native_bfloat16();

/// In which type a CPU computes fastest with parameters of `dtype`: float32 for bfloat16 where that is slow. `dtype`
/// elsewhere.
c10::ScalarType compute_type(c10::ScalarType dtype, const c10::Device& device);

/// The parts of a block; all must outlive the call only.
struct BlockParts {
  const Linear *q = nullptr, *k = nullptr, *v = nullptr, *o = nullptr;
  const Linear *gate = nullptr, *up = nullptr, *down = nullptr;
  at::Tensor norm1, norm2;  ///< weights before attention and before the gate
  double eps = 1e-6;
};

/// What all blocks of a pass share.
struct BlockContext {
  at::Tensor cos, sin;  ///< [N,d/2] float32
  at::Tensor mask;      ///< keeps `attention.mask` alive, or undefined
  kernels::AttentionShape attention;
};

/// Whether decoder_block can take these parts and this input: float32 or bfloat16 on a CPU, plain matrices, no
/// dropout on pairs that train.
bool block_fits(const BlockParts& parts, const at::Tensor& x, std::int64_t head_dim);

/// x [N,D] -> [N,D]; the activation is SiLU.
at::Tensor decoder_block(const BlockParts& parts, const at::Tensor& x,
                         const std::shared_ptr<const BlockContext>& context);

/// For comparisons: off makes block_fits answer false, `native` overrides native_bfloat16().
void set_blocks_enabled(bool enabled);
void set_native_bfloat16(bool native);

}  // namespace llava::fused
