#pragma once
#include <cstdint>

/// What the row kernels share.

// The binary runs on any x86-64; functions marked so exist in three versions and the loader takes the best one
// the machine has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define LLAVA_ROW __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define LLAVA_ROW
#endif

namespace llava::kernels {

/// Adding it to a float of less than 2^22 rounds that to the nearest integer, which is then the low bits.
inline constexpr float kRounder = 12582912.0F;

/// e^x within 2 ulp for x in [-80, 60], clamped to it (Cephes' expf); branch-free, so that loops over it
/// vectorise. The range keeps what is made of it, such as 1 / (1 + e^x) and its products, away from denormal
/// numbers, which cost a hundred cycles each.
[[gnu::always_inline]] inline float fast_exp(float x) {
  x = x < -80.0F ? -80.0F : x;
  x = x > 60.0F ? 60.0F : x;
  const float shifted = x * 1.44269504088896341F + kRounder;
  const float n = shifted - kRounder;
  const float r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const std::int32_t power =
      __builtin_bit_cast(std::int32_t, shifted) - __builtin_bit_cast(std::int32_t, kRounder);
  return __builtin_bit_cast(float, __builtin_bit_cast(std::int32_t, p) + (power << 23));
}

}  // namespace llava::kernels
