#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "vision/resample.h"

// The one hot loop of resizing. Both passes use it: the vertical pass on image rows, the horizontal pass on
// a transposed block of rows, so that its lanes are contiguous too. On x86-64 blocks of 32 lanes take AVX2
// where the machine has it; the rest, and other machines, take the plain loop. Integer sums, so both give
// the same bytes.
namespace llava {

namespace {

constexpr std::int32_t kHalf = 1 << (kResampleBits - 1);

struct Job {
  const std::uint8_t* rows;
  std::size_t stride;
  const std::int32_t* weights;
  std::int32_t count;
  const std::uint8_t* frame;
  std::int32_t frame_weight;
};

void weigh_plain(const Job& job, std::size_t begin, std::size_t end, std::uint8_t* out) {
  constexpr std::size_t kBlock = 32;
  std::int32_t sums[kBlock];
  for (std::size_t lane = begin; lane < end; lane += kBlock) {
    const std::size_t n = std::min(kBlock, end - lane);
    for (std::size_t i = 0; i < n; ++i) sums[i] = kHalf;
    if (job.frame_weight != 0)
      for (std::size_t i = 0; i < n; ++i) sums[i] += job.frame_weight * job.frame[lane + i];
    for (std::int32_t k = 0; k < job.count; ++k) {
      const std::uint8_t* row = job.rows + static_cast<std::size_t>(k) * job.stride + lane;
      for (std::size_t i = 0; i < n; ++i) sums[i] += job.weights[k] * row[i];
    }
    for (std::size_t i = 0; i < n; ++i)
      out[lane + i] = static_cast<std::uint8_t>(std::clamp(sums[i] >> kResampleBits, 0, 255));
  }
}

#if defined(__x86_64__)

/// sums += weight * 32 bytes.
[[gnu::target("avx2"), gnu::always_inline]] inline void add_weighted(__m256i* sums, std::int32_t weight,
                                                                     const std::uint8_t* bytes) {
  const __m256i factor = _mm256_set1_epi32(weight);
  for (int v = 0; v < 4; ++v) {
    const __m256i pixels =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes + 8 * v)));
    sums[v] = _mm256_add_epi32(sums[v], _mm256_mullo_epi32(factor, pixels));
  }
}

/// clip8 of 32 sums. The two packs saturate and interleave 128-bit halves; the permutation puts the bytes
/// in order.
[[gnu::target("avx2"), gnu::always_inline]] inline void store_clipped(const __m256i* sums,
                                                                      std::uint8_t* out) {
  __m256i values[4];
  for (int v = 0; v < 4; ++v) values[v] = _mm256_srai_epi32(sums[v], kResampleBits);
  const __m256i low = _mm256_packs_epi32(values[0], values[1]),
                high = _mm256_packs_epi32(values[2], values[3]);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bytes);
}

/// All lanes in blocks of 32, the last of which may overlap the one before; false if there are fewer.
[[gnu::target("avx2")]] bool weigh_avx2(const Job& job, std::size_t lanes, std::uint8_t* out) {
  if (lanes < 32) return false;
  for (std::size_t next = 0; next < lanes; next += 32) {
    const std::size_t lane = std::min(next, lanes - 32);
    const __m256i half = _mm256_set1_epi32(kHalf);
    __m256i sums[4] = {half, half, half, half};
    if (job.frame_weight != 0) add_weighted(sums, job.frame_weight, job.frame + lane);
    for (std::int32_t k = 0; k < job.count; ++k)
      add_weighted(sums, job.weights[k], job.rows + static_cast<std::size_t>(k) * job.stride + lane);
    store_clipped(sums, out + lane);
  }
  return true;
}

#endif

}  // namespace

void weigh_rows(const std::uint8_t* rows, std::size_t stride, const std::int32_t* weights,
                std::int32_t count, const std::uint8_t* frame, std::int32_t frame_weight, std::uint8_t* out,
                std::size_t lanes) {
  const Job job{rows, stride, weights, count, frame, frame_weight};
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2 && weigh_avx2(job, lanes, out)) return;
#endif
  weigh_plain(job, 0, lanes, out);
}

}  // namespace llava
