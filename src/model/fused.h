#pragma once
#include <ATen/core/Tensor.h>

#include "model/weights.h"

/// Differentiable operations in one pass over memory (model/kernels.h), for float32 on a CPU. ops.h chooses
/// between these and the plain chains of LibTorch operations, which they equal up to rounding.
namespace llava::fused {

/// Whether these can stand in for operations on `x`.
bool fits(const at::Tensor& x);

/// `weight` must not want a gradient.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
at::Tensor silu_gate(const at::Tensor& gate, const at::Tensor& up);
/// x [B,T,H,d]; cos, sin [B,T,d/2] float32.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// A frozen matrix [out,in] as 8-bit integers with a scale for each row.
Int8Matrix quantise(const at::Tensor& weight);
/// x [...,in] -> x W^T + b. Rows of x, and in the backward pass rows of the gradient, are rounded to 8 bits
/// with a scale each; sums are exact (as in LLM.int8 and SwitchBack). About 1 % off the float32 product
/// (r.m.s.).
at::Tensor int8_linear(const at::Tensor& x, const Int8Matrix& weight, const at::Tensor& bias);

}  // namespace llava::fused
