#pragma once
#include <cstdint>
#include <vector>

/// Attention over rows of [q heads | k heads | v heads] as a decoder block's product leaves them, float32, without
/// copies of keys for the query heads of a group and without work behind the diagonal. Shared out between
/// LibTorch's OpenMP threads by stretch and key head; results do not depend on the number of threads.
namespace llava::kernels {

/// Consecutive rows that attend to each other only.
struct Stretch {
  std::int64_t begin = 0, length = 0;
};

struct AttentionShape {
  std::int64_t heads = 0, kv_heads = 0, width = 0;  ///< width of a head: a multiple of 16
  std::vector<Stretch> stretches;
  /// Additive, one [length,length] block a stretch at `mask + i * mask_stride`; null: causal only. Keys behind
  /// the query are never seen.
  const float* mask = nullptr;
  std::int64_t mask_stride = 0, mask_row = 0;  ///< mask_row: elements from one query's row to the next
  std::int64_t columns() const { return (heads + 2 * kv_heads) * width; }
};

/// qkv [rows,columns] -> out [rows,heads*width], and log sum exp of the scores, lse [rows,heads].
void attention(const AttentionShape& shape, const float* qkv, float* out, float* lse);

/// Gradient of the above: dqkv [rows,columns]. Rows outside of all stretches are left alone, as are theirs above.
void attention_backward(const AttentionShape& shape, const float* grad, const float* qkv, const float* out,
                        const float* lse, float* dqkv);

}  // namespace llava::kernels
