#pragma once
#include <ATen/core/Tensor.h>

/// Products of float32 rows with 8-bit matrices: the rows are rounded to 8 bits, each with a scale of its own, multiplied as
/// integers and scaled back. On a CPU.
namespace llava::fused {

struct Int8Rows {
  at::Tensor values;  ///< [N,K] int8
  at::Tensor scales;  ///< [N] float32
};

/// a [N,K] float32, columns side by side in memory, times column_scale [K] (undefined: none), in 8 bits.
Int8Rows to_int8(const at::Tensor& a, const at::Tensor& column_scale);

/// out [N,M] float32, columns side by side in memory, = or += a b with b [K,M] int8, times out_scale [M] (undefined:
/// none).
void int8_product(const Int8Rows& a, const at::Tensor& b, const at::Tensor& out_scale, at::Tensor& out, bool add = false);

}  // namespace llava::fused
