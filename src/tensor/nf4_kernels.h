#pragma once
#include <cstdint>

/// Loops over raw memory for nf4.cpp; one block at a time is one thread's work.
namespace llava::nf4 {

/// Scales [ceil(n/block)] and codes [ceil(n/2)] of n numbers. `x` is float32.
void quantise(const float* x, std::int64_t n, std::int64_t block, float* absmax, std::uint8_t* packed);

/// out[i] = value(code i) * absmax[i / block]. `Out` is float or the 16 bits of a shorter type, whose values
/// `round` gives.
using Round = std::uint16_t (*)(float);
void dequantise(const std::uint8_t* packed, const float* absmax, std::int64_t n, std::int64_t block,
                float* out);
void dequantise(const std::uint8_t* packed, const float* absmax, std::int64_t n, std::int64_t block,
                Round round, std::uint16_t* out);

/// 8-bit codes of n scales in blocks of 256, through the table of 65536 entries that bitsandbytes' CPU library
/// looks numbers up in: a number is first rounded to that grid, then to the nearest value of the map.
void quantise_scales(const float* x, std::int64_t n, float* absmax, std::uint8_t* codes);

}  // namespace llava::nf4
