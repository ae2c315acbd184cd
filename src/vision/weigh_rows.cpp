#include <algorithm>
#include <cstring>

#include "vision/resample.h"

// The one hot loop of resizing. Both passes use it: the vertical pass on image rows, the horizontal pass on
// a transposed block of rows, so that its lanes are contiguous too. Vectors are the compiler's generic
// ones; on x86-64 a second copy of the function is compiled for AVX2 and chosen at run time, because the
// baseline lacks a 32-bit multiply.
namespace llava {

namespace {

constexpr std::int32_t kHalf = 1 << (kResampleBits - 1);
constexpr std::size_t kWidth = 8;    // lanes of a vector
constexpr std::size_t kVectors = 4;  // accumulators kept in registers

typedef std::int32_t Int8x32 __attribute__((vector_size(32)));
typedef std::uint8_t Byte8 __attribute__((vector_size(8)));

inline std::uint8_t clip8(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kResampleBits, 0, 255));
}

/// sum[v] += weight * bytes, for kVectors * kWidth bytes.
[[gnu::always_inline]] inline void add_weighted(Int8x32* sum, std::int32_t weight,
                                                const std::uint8_t* bytes) {
  for (std::size_t v = 0; v < kVectors; ++v) {
    Byte8 pixels;
    std::memcpy(&pixels, bytes + v * kWidth, sizeof(pixels));
    sum[v] += weight * __builtin_convertvector(pixels, Int8x32);
  }
}

[[gnu::always_inline]] inline void weigh_rows_body(const std::uint8_t* rows, std::size_t stride,
                                                   const std::int32_t* weights, std::int32_t count,
                                                   const std::uint8_t* frame, std::int32_t frame_weight,
                                                   std::uint8_t* out, std::size_t lanes) {
  std::size_t lane = 0;
  for (; lane + kVectors * kWidth <= lanes; lane += kVectors * kWidth) {
    Int8x32 sum[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) sum[v] = Int8x32{} + kHalf;
    if (frame_weight != 0) add_weighted(sum, frame_weight, frame + lane);
    for (std::int32_t k = 0; k < count; ++k)
      add_weighted(sum, weights[k], rows + static_cast<std::size_t>(k) * stride + lane);
    for (std::size_t v = 0; v < kVectors; ++v)
      for (std::size_t i = 0; i < kWidth; ++i) out[lane + v * kWidth + i] = clip8(sum[v][i]);
  }
  for (; lane < lanes; ++lane) {
    std::int32_t sum = kHalf + (frame_weight != 0 ? frame_weight * frame[lane] : 0);
    for (std::int32_t k = 0; k < count; ++k)
      sum += weights[k] * rows[static_cast<std::size_t>(k) * stride + lane];
    out[lane] = clip8(sum);
  }
}

void weigh_rows_baseline(const std::uint8_t* rows, std::size_t stride, const std::int32_t* weights,
                         std::int32_t count, const std::uint8_t* frame, std::int32_t frame_weight,
                         std::uint8_t* out, std::size_t lanes) {
  weigh_rows_body(rows, stride, weights, count, frame, frame_weight, out, lanes);
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] void weigh_rows_avx2(const std::uint8_t* rows, std::size_t stride,
                                             const std::int32_t* weights, std::int32_t count,
                                             const std::uint8_t* frame, std::int32_t frame_weight,
                                             std::uint8_t* out, std::size_t lanes) {
  weigh_rows_body(rows, stride, weights, count, frame, frame_weight, out, lanes);
}
#endif

}  // namespace

void weigh_rows(const std::uint8_t* rows, std::size_t stride, const std::int32_t* weights,
                std::int32_t count, const std::uint8_t* frame, std::int32_t frame_weight, std::uint8_t* out,
                std::size_t lanes) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return weigh_rows_avx2(rows, stride, weights, count, frame, frame_weight, out, lanes);
#endif
  weigh_rows_baseline(rows, stride, weights, count, frame, frame_weight, out, lanes);
}

}  // namespace llava
