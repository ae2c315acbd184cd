#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

/// 8-bit codes with a dynamic exponent in blocks that have a float32 scale each (Dettmers et al., "8-bit
/// optimizers via block-wise quantization"; rules as bitsandbytes': spec training.md §2.1).
namespace llava {

/// The 256 values in [-1,1] (or [0,1]) that codes stand for, ascending, float32 on the CPU.
const at::Tensor& dynamic_map(bool with_sign);

struct Blockwise8 {
  at::Tensor codes;   ///< [n] uint8
  at::Tensor absmax;  ///< [ceil(n / block)] float32
};

/// Codes of the nearest values (of two equally near ones the lower) of `x` [n] float32 over the largest
/// absolute value of its block.
Blockwise8 quantise_blockwise8(const at::Tensor& x, bool with_sign, std::int64_t block = 256);
/// float32 [n].
at::Tensor dequantise_blockwise8(const Blockwise8& q, bool with_sign, std::int64_t block = 256);

}  // namespace llava
