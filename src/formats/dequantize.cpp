#include "formats/dequantize.h"

#include <cstring>

#include "base/error.h"

/// One function per block type. Layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h;
/// the order of the float operations is that of PyPI gguf's quants.py, which the goldens in
/// tests/golden/gguf pin down. Inner loops run over fixed counts into separate integer buffers, which lets
/// the compiler vectorise them.
namespace llava {

namespace {

using Bytes = const std::uint8_t*;

float half_at(Bytes p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return f16_to_float(bits);
}

/// 16 bytes of nibbles -> 32 values: low nibbles first, then the high ones.
void unpack_nibbles(Bytes packed, std::uint8_t* values) {
  for (int i = 0; i < 16; ++i) values[i] = packed[i] & 0x0F;
  for (int i = 0; i < 16; ++i) values[i + 16] = packed[i] >> 4;
}

/// Adds the fifth bit of 32 values, bit i of the little-endian word at `high`.
void add_fifth_bits(Bytes high, std::uint8_t* values) {
  for (int i = 0; i < 32; ++i) values[i] |= static_cast<std::uint8_t>(((high[i / 8] >> (i % 8)) & 1) << 4);
}

void q4_0(Bytes block, float* out) {
  const float d = half_at(block);
  std::uint8_t q[32];
  unpack_nibbles(block + 2, q);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i] - 8);
}

void q4_1(Bytes block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  std::uint8_t q[32];
  unpack_nibbles(block + 4, q);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]) + m;
}

void q5_0(Bytes block, float* out) {
  const float d = half_at(block);
  std::uint8_t q[32];
  unpack_nibbles(block + 6, q);
  add_fifth_bits(block + 2, q);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i] - 16);
}

void q5_1(Bytes block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  std::uint8_t q[32];
  unpack_nibbles(block + 8, q);
  add_fifth_bits(block + 4, q);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]) + m;
}

void q8_0(Bytes block, float* out) {
  const float d = half_at(block);
  std::int8_t q[32];
  std::memcpy(q, block + 2, 32);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(q[i]) * d;
}

/// 16 scales of 4 bits with their mins, 64 bytes of 2-bit values, d, dmin.
void q2_k(Bytes block, float* out) {
  const Bytes scales = block, quants = block + 16;
  const float d = half_at(block + 80), dmin = half_at(block + 82);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(scales[group] & 0x0F);
    const float min = dmin * static_cast<float>(scales[group] >> 4);
    const Bytes q = quants + group / 8 * 32 + group % 2 * 16;
    const int shift = group % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i)
      out[group * 16 + i] = scale * static_cast<float>((q[i] >> shift) & 3) - min;
  }
}

/// 32 bytes of high bits, 64 of 2-bit values, 16 scales of 6 bits in 12 bytes, d. A clear high bit means
/// minus 4.
void q3_k(Bytes block, float* out) {
  const Bytes high = block, quants = block + 32, packed = block + 96;
  const float d = half_at(block + 108);
  for (int group = 0; group < 16; ++group) {
    const int low_bits = (packed[group % 8] >> (group / 8 * 4)) & 0x0F;
    const int high_bits = (packed[8 + group % 4] >> (group / 4 * 2)) & 3;
    const float scale = d * static_cast<float>((low_bits | (high_bits << 4)) - 32);
    const Bytes q = quants + group / 8 * 32 + group % 2 * 16;
    const Bytes h = high + group % 2 * 16;
    const int shift = group % 8 / 2 * 2, high_shift = group / 2;
    for (int i = 0; i < 16; ++i) {
      const int value = ((q[i] >> shift) & 3) - ((((h[i] >> high_shift) & 1) ^ 1) << 2);
      out[group * 16 + i] = scale * static_cast<float>(value);
    }
  }
}

/// Eight 6-bit scales and eight 6-bit mins in 12 bytes.
void unpack_scales(Bytes packed, std::uint8_t* scales, std::uint8_t* mins) {
  for (int i = 0; i < 4; ++i) {
    scales[i] = packed[i] & 0x3F;
    mins[i] = packed[i + 4] & 0x3F;
    scales[i + 4] = static_cast<std::uint8_t>((packed[i + 8] & 0x0F) | ((packed[i] >> 2) & 0x30));
    mins[i + 4] = static_cast<std::uint8_t>((packed[i + 8] >> 4) | ((packed[i + 4] >> 2) & 0x30));
  }
}

void q4_k(Bytes block, float* out) {
  const float d = half_at(block), dmin = half_at(block + 2);
  std::uint8_t scales[8], mins[8];
  unpack_scales(block + 4, scales, mins);
  for (int group = 0; group < 8; ++group) {
    const float scale = d * static_cast<float>(scales[group]), min = dmin * static_cast<float>(mins[group]);
    const Bytes q = block + 16 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i)
      out[group * 32 + i] = scale * static_cast<float>((q[i] >> shift) & 0x0F) - min;
  }
}

void q5_k(Bytes block, float* out) {
  const float d = half_at(block), dmin = half_at(block + 2);
  std::uint8_t scales[8], mins[8];
  unpack_scales(block + 4, scales, mins);
  const Bytes high = block + 16;
  for (int group = 0; group < 8; ++group) {
    const float scale = d * static_cast<float>(scales[group]), min = dmin * static_cast<float>(mins[group]);
    const Bytes q = block + 48 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int value = ((q[i] >> shift) & 0x0F) | (((high[i] >> group) & 1) << 4);
      out[group * 32 + i] = scale * static_cast<float>(value) - min;
    }
  }
}

/// 128 bytes of low nibbles, 64 of 2 high bits, 16 scales of 8 bits, d.
void q6_k(Bytes block, float* out) {
  const float d = half_at(block + 208);
  std::int8_t scales[16];
  std::memcpy(scales, block + 192, 16);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(scales[group]);
    const int half = group / 8, within = group % 8;  // a half has four runs of 32 values
    const Bytes low = block + half * 64 + within % 4 * 16;
    const Bytes high = block + 128 + half * 32 + within % 2 * 16;
    const int low_shift = within / 4 * 4, high_shift = within / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      const int value = (((low[i] >> low_shift) & 0x0F) | (((high[i] >> high_shift) & 3) << 4)) - 32;
      out[group * 16 + i] = scale * static_cast<float>(value);
    }
  }
}

template <void (*kExpand)(Bytes, float*)>
void each_block(DType dtype, const std::byte* blocks, std::size_t num_blocks, float* out) {
  const std::size_t bytes = block_bytes(dtype);
  const auto elements = static_cast<std::size_t>(block_elements(dtype));
  const Bytes data = reinterpret_cast<Bytes>(blocks);
  for (std::size_t i = 0; i < num_blocks; ++i) kExpand(data + i * bytes, out + i * elements);
}

}  // namespace

void dequantize_blocks(DType dtype, const std::byte* blocks, std::size_t num_blocks, float* out) {
  switch (dtype) {
    case DType::kQ4_0:
      return each_block<q4_0>(dtype, blocks, num_blocks, out);
    case DType::kQ4_1:
      return each_block<q4_1>(dtype, blocks, num_blocks, out);
    case DType::kQ5_0:
      return each_block<q5_0>(dtype, blocks, num_blocks, out);
    case DType::kQ5_1:
      return each_block<q5_1>(dtype, blocks, num_blocks, out);
    case DType::kQ8_0:
      return each_block<q8_0>(dtype, blocks, num_blocks, out);
    case DType::kQ2_K:
      return each_block<q2_k>(dtype, blocks, num_blocks, out);
    case DType::kQ3_K:
      return each_block<q3_k>(dtype, blocks, num_blocks, out);
    case DType::kQ4_K:
      return each_block<q4_k>(dtype, blocks, num_blocks, out);
    case DType::kQ5_K:
      return each_block<q5_k>(dtype, blocks, num_blocks, out);
    case DType::kQ6_K:
      return each_block<q6_k>(dtype, blocks, num_blocks, out);
    default:
      fail(ErrorKind::kInternal, "{} is not a block type", to_string(dtype));
  }
}

}  // namespace llava
