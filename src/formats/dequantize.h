#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>

#include "formats/tensor_file.h"

namespace llava {

/// bfloat16 bits -> float32, exact (NaN payloads included).
inline float bf16_to_float(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

/// IEEE half bits -> float32, exact: zeros, denormals, infinities; a NaN keeps its payload. Without
/// branches, so that loops over it vectorise, and without denormal arithmetic, so that flush-to-zero modes
/// change nothing.
inline float f16_to_float(std::uint16_t bits) {
  const std::uint32_t sign = std::uint32_t{bits & 0x8000U} << 16;
  const std::uint32_t rest = bits & 0x7FFFU;
  const std::uint32_t normal = (rest << 13) + (112U << 23);
  const std::uint32_t special = (rest << 13) | 0x7F800000U;
  const auto denormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(0x3F000000U | rest) - 0.5F);
  std::uint32_t magnitude = rest < 0x0400U ? denormal : normal;
  magnitude = rest >= 0x7C00U ? special : magnitude;
  return std::bit_cast<float>(sign | magnitude);
}

/// Expands `num_blocks` GGUF blocks (block_bytes(dtype) each) to block_elements(dtype) floats each,
/// rounding every product and sum as gguf-py's numpy code does.
void dequantize_blocks(DType dtype, const std::byte* blocks, std::size_t num_blocks, float* out);

}  // namespace llava
