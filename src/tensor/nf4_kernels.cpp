#include "tensor/nf4_kernels.h"

#include <algorithm>
#include <cmath>

#include "tensor/nf4.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define LLAVA_BLOCK __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define LLAVA_BLOCK
#endif

namespace llava::nf4 {

namespace {

constexpr float kSmallest = 1e-38F;     // bitsandbytes' guard against blocks of zeros
constexpr std::int64_t kScaleBlock = 256;  // scales that share one scale of their own
constexpr int kGrid = 65536;
constexpr std::int64_t kLargestBlock = 4096;

/// Midpoints of neighbouring values; a number belongs to the upper one only if it is greater.
std::array<float, 15> midpoints() {
  std::array<float, 15> found{};
  for (std::size_t i = 0; i < found.size(); ++i) found[i] = (nf4_values()[i] + nf4_values()[i + 1]) / 2;
  return found;
}

LLAVA_BLOCK float largest(const float* x, std::int64_t n) {
  float found = 0;
  for (std::int64_t i = 0; i < n; ++i) found = std::fabs(x[i]) > found ? std::fabs(x[i]) : found;
  return found;
}

/// Codes of one block, a byte each: how many midpoints lie below.
LLAVA_BLOCK void block_codes(const float* __restrict x, std::int64_t n, float scale, bool divide,
                             const float* __restrict bounds, std::uint8_t* __restrict codes) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float v = divide ? x[i] / scale : x[i] * scale;
    int code = 0;
    for (int b = 0; b < 15; ++b) code += v > bounds[b] ? 1 : 0;
    codes[i] = static_cast<std::uint8_t>(code);
  }
}

template <class Out>
[[gnu::always_inline]] inline void unpack(const std::uint8_t* __restrict packed, std::int64_t n,
                                          const Out* __restrict table, Out* __restrict out) {
  const std::int64_t pairs = n / 2;
  for (std::int64_t i = 0; i < pairs; ++i) {
    out[2 * i] = table[packed[i] >> 4];
    out[2 * i + 1] = table[packed[i] & 15];
  }
  if (n % 2 != 0) out[n - 1] = table[packed[pairs] >> 4];
}
LLAVA_BLOCK void unpack32(const std::uint8_t* packed, std::int64_t n, const float* table, float* out) {
  unpack(packed, n, table, out);
}
LLAVA_BLOCK void unpack16(const std::uint8_t* packed, std::int64_t n, const std::uint16_t* table,
                          std::uint16_t* out) {
  unpack(packed, n, table, out);
}

/// For each number of the grid the code of the nearest value of the map.
const std::array<std::uint8_t, kGrid>& grid_codes() {
  static const auto table = [] {
    const auto& values = dynamic_map_values();
    std::array<std::uint8_t, kGrid> codes{};
    std::size_t code = 0;
    for (int i = 0; i < kGrid; ++i) {
      const float x = -1.0F + (2.0F * static_cast<float>(i)) / static_cast<float>(kGrid - 1);
      while (code < 255 && 0.5F * (values[code] + values[code + 1]) < x) ++code;
      codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(code);
    }
    return codes;
  }();
  return table;
}

}  // namespace

void quantise(const float* x, std::int64_t n, std::int64_t block, float* absmax, std::uint8_t* packed) {
  const std::array<float, 15> bounds = midpoints();
  const std::int64_t blocks = (n + block - 1) / block;
#pragma omp parallel for schedule(static)
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t begin = b * block, length = std::min(block, n - begin);
    const bool whole = length == block;  // only whole blocks are multiplied by the reciprocal
    const float most = largest(x + begin, length), guarded = std::max(most, kSmallest);
    absmax[b] = whole ? most : guarded;
    std::uint8_t codes[kLargestBlock + 1];
    codes[length] = 7;  // an odd end is filled up with the code of 0
    block_codes(x + begin, length, whole ? 1.0F / guarded : guarded, !whole, bounds.data(), codes);
    for (std::int64_t i = 0; i < length; i += 2)
      packed[(begin + i) / 2] = static_cast<std::uint8_t>(codes[i] << 4 | codes[i + 1]);
  }
}

void dequantise(const std::uint8_t* packed, const float* absmax, std::int64_t n, std::int64_t block,
                float* out) {
  const std::int64_t blocks = (n + block - 1) / block;
#pragma omp parallel for schedule(static)
  for (std::int64_t b = 0; b < blocks; ++b) {
    float table[16];
    for (std::size_t i = 0; i < 16; ++i) table[i] = nf4_values()[i] * absmax[b];
    unpack32(packed + b * block / 2, std::min(block, n - b * block), table, out + b * block);
  }
}

void dequantise(const std::uint8_t* packed, const float* absmax, std::int64_t n, std::int64_t block,
                Round round, std::uint16_t* out) {
  const std::int64_t blocks = (n + block - 1) / block;
#pragma omp parallel for schedule(static)
  for (std::int64_t b = 0; b < blocks; ++b) {
    std::uint16_t table[16];
    for (std::size_t i = 0; i < 16; ++i) table[i] = round(nf4_values()[i] * absmax[b]);
    unpack16(packed + b * block / 2, std::min(block, n - b * block), table, out + b * block);
  }
}

void quantise_scales(const float* x, std::int64_t n, float* absmax, std::uint8_t* codes) {
  const auto& table = grid_codes();
  for (std::int64_t begin = 0; begin < n; begin += kScaleBlock) {
    const std::int64_t length = std::min(kScaleBlock, n - begin);
    const float most = largest(x + begin, length);
    absmax[begin / kScaleBlock] = most;
    const float scale = 1.0F / most;
    for (std::int64_t i = begin; i < begin + length; ++i) {
      const float v = std::clamp(x[i] * scale, -1.0F, 1.0F);
      const float place = (v + 1.0F) * 0.5F * static_cast<float>(kGrid - 1) + 0.5F;
      codes[i] = most == 0 ? std::uint8_t{0} : table[static_cast<std::size_t>(place)];
    }
  }
}

}  // namespace llava::nf4
