#include "model/attention_kernel.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/row_math.h"

namespace llava::kernels {

namespace {

constexpr std::int64_t kLanes = 16, kRows = 6, kVectors = 4;
/// Queries that are handled together.
constexpr std::int64_t kBlock = 48;

/// 16 floats at any address.
using Lanes [[gnu::vector_size(64), gnu::aligned(4), gnu::may_alias]] = float;

/// A matrix whose element (i, k) is at data[i * row + k * column].
struct Left {
  const float* data;
  std::int64_t row, column;
};

/// c [R, V*16] (+)= a [R,k] b [k, V*16], all sums in registers.
template <int R, int V>
[[gnu::always_inline]] inline void tile(std::int64_t k, Left a, const float* b, std::int64_t b_row, float* c,
                                        std::int64_t c_row, bool add) {
  Lanes sums[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      sums[r][v] = add ? *reinterpret_cast<const Lanes*>(c + r * c_row + v * kLanes) : Lanes{};
  for (std::int64_t i = 0; i < k; ++i) {
    Lanes right[V];
    for (int v = 0; v < V; ++v) right[v] = *reinterpret_cast<const Lanes*>(b + i * b_row + v * kLanes);
    for (int r = 0; r < R; ++r) {
      const float left = a.data[r * a.row + i * a.column];
      for (int v = 0; v < V; ++v) sums[r][v] += left * right[v];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) *reinterpret_cast<Lanes*>(c + r * c_row + v * kLanes) = sums[r][v];
}

template <int V>
[[gnu::always_inline]] inline void tile_rows(std::int64_t rows, std::int64_t k, Left a, const float* b,
                                             std::int64_t b_row, float* c, std::int64_t c_row, bool add) {
  switch (rows) {
    case 1: return tile<1, V>(k, a, b, b_row, c, c_row, add);
    case 2: return tile<2, V>(k, a, b, b_row, c, c_row, add);
    case 3: return tile<3, V>(k, a, b, b_row, c, c_row, add);
    case 4: return tile<4, V>(k, a, b, b_row, c, c_row, add);
    case 5: return tile<5, V>(k, a, b, b_row, c, c_row, add);
    default: return tile<6, V>(k, a, b, b_row, c, c_row, add);
  }
}

/// c [m,n] (+)= a [m,k] b [k,n]; n is a multiple of 16.
LLAVA_ROW void product(std::int64_t m, std::int64_t n, std::int64_t k, Left a, const float* b, std::int64_t b_row,
                       float* c, std::int64_t c_row, bool add) {
  for (std::int64_t j = 0; j < n; j += kVectors * kLanes) {
    const std::int64_t vectors = std::min(kVectors, (n - j) / kLanes);
    for (std::int64_t i = 0; i < m; i += kRows) {
      const std::int64_t rows = std::min(kRows, m - i);
      const Left part{a.data + i * a.row, a.row, a.column};
      float* out = c + i * c_row + j;
      switch (vectors) {
        case 1: tile_rows<1>(rows, k, part, b + j, b_row, out, c_row, add); break;
        case 2: tile_rows<2>(rows, k, part, b + j, b_row, out, c_row, add); break;
        case 3: tile_rows<3>(rows, k, part, b + j, b_row, out, c_row, add); break;
        default: tile_rows<4>(rows, k, part, b + j, b_row, out, c_row, add); break;
      }
    }
  }
}

/// Adds the mask's row, which may be null, after scaling; returns the largest score.
LLAVA_ROW float scale_scores(float* __restrict s, const float* __restrict mask, std::int64_t seen, float scale) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -std::numeric_limits<float>::infinity());
  if (mask == nullptr) {
    for (std::int64_t j = 0; j < seen; ++j) s[j] *= scale;
  } else {
    for (std::int64_t j = 0; j < seen; ++j) s[j] = s[j] * scale + mask[j];
  }
  std::int64_t j = 0;
  for (; j + kLanes <= seen; j += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = s[j + lane] > lanes[lane] ? s[j + lane] : lanes[lane];
  for (; j < seen; ++j) lanes[0] = s[j] > lanes[0] ? s[j] : lanes[0];
  return *std::max_element(lanes, lanes + kLanes);
}

/// s <- e^(s - shift), 0 where masked; returns the sum.
LLAVA_ROW float exponentials(float* __restrict s, std::int64_t seen, float shift) {
  float lanes[kLanes] = {};
  std::int64_t j = 0;
  for (; j + kLanes <= seen; j += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const float x = s[j + lane], e = fast_exp(x - shift);
      s[j + lane] = x < -1e30F ? 0.0F : e;
      lanes[lane] += s[j + lane];
    }
  for (; j < seen; ++j) {
    s[j] = s[j] < -1e30F ? 0.0F : fast_exp(s[j] - shift);
    lanes[0] += s[j];
  }
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

LLAVA_ROW void multiply(float* x, std::int64_t n, float factor) {
  for (std::int64_t i = 0; i < n; ++i) x[i] *= factor;
}

/// ds = p * (dp - delta) * scale, in place of dp.
LLAVA_ROW void score_gradient(const float* __restrict p, float* __restrict dp, std::int64_t n, float delta,
                              float scale) {
  for (std::int64_t j = 0; j < n; ++j) dp[j] = p[j] * (dp[j] - delta) * scale;
}

LLAVA_ROW float dot(const float* __restrict a, const float* __restrict b, std::int64_t n) {
  float lanes[kLanes] = {};
  for (std::int64_t i = 0; i < n; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

std::int64_t padded(std::int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

/// Columns of rows [length,width] as [width, padded(length)], zeros behind.
void transpose(const float* rows, std::int64_t row, std::int64_t length, std::int64_t width, float* out) {
  const std::int64_t out_row = padded(length);
  for (std::int64_t begin = 0; begin < length; begin += kLanes) {
    const std::int64_t end = std::min(begin + kLanes, length);
    for (std::int64_t d = 0; d < width; ++d)
      for (std::int64_t t = begin; t < end; ++t) out[d * out_row + t] = rows[t * row + d];
  }
  for (std::int64_t d = 0; d < width; ++d) std::fill(out + d * out_row + length, out + (d + 1) * out_row, 0.0F);
}

/// One stretch and key head: where its parts lie.
struct Task {
  const AttentionShape& shape;
  std::int64_t begin, length, kv_head;
  const float* mask;
  std::int64_t row() const { return shape.columns(); }
  std::int64_t out_row() const { return shape.heads * shape.width; }
  std::int64_t group() const { return shape.heads / shape.kv_heads; }
  std::int64_t query(std::int64_t head) const { return begin * row() + head * shape.width; }
  std::int64_t key() const { return begin * row() + (shape.heads + kv_head) * shape.width; }
  std::int64_t value() const { return key() + shape.kv_heads * shape.width; }
  std::int64_t out(std::int64_t head) const { return begin * out_row() + head * shape.width; }
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(shape.width)); }
};

/// Memory of a thread, kept between calls.
float* work_memory(std::size_t floats) {
  static thread_local std::vector<float> memory;
  if (memory.size() < floats) memory.resize(floats);
  return memory.data();
}

void forward_task(const Task& t, const float* qkv, float* out, float* lse) {
  const std::int64_t width = t.shape.width, wide = padded(t.length);
  float* keys = work_memory(static_cast<std::size_t>((width + kBlock) * wide));
  float* scores = keys + width * wide;
  transpose(qkv + t.key(), t.row(), t.length, width, keys);
  for (std::int64_t head = t.kv_head * t.group(); head < (t.kv_head + 1) * t.group(); ++head) {
    for (std::int64_t i0 = 0; i0 < t.length; i0 += kBlock) {
      const std::int64_t rows = std::min(kBlock, t.length - i0), seen = i0 + rows, row = padded(seen);
      product(rows, row, width, {qkv + t.query(head) + i0 * t.row(), t.row(), 1}, keys, wide, scores, row, false);
      for (std::int64_t r = 0; r < rows; ++r) {
        float* s = scores + r * row;
        const std::int64_t own = i0 + r + 1;
        const float top = scale_scores(s, t.mask ? t.mask + (i0 + r) * t.shape.mask_row : nullptr, own, t.scale());
        const float sum = exponentials(s, own, top);
        multiply(s, own, 1.0F / sum);
        std::fill(s + own, s + row, 0.0F);
        lse[(t.begin + i0 + r) * t.shape.heads + head] = top + std::log(sum);
      }
      product(rows, width, seen, {scores, row, 1}, qkv + t.value(), t.row(), out + t.out(head) + i0 * t.out_row(),
              t.out_row(), false);
    }
  }
}

struct BackwardMemory {
  float *keys, *values, *p, *dp, *dk, *dv;
};

void backward_block(const Task& t, const BackwardMemory& m, std::int64_t head, std::int64_t i0, const float* grad,
                    const float* qkv, const float* out, const float* lse, float* dqkv) {
  const std::int64_t width = t.shape.width, wide = padded(t.length);
  const std::int64_t rows = std::min(kBlock, t.length - i0), seen = i0 + rows, row = padded(seen);
  const float* q = qkv + t.query(head) + i0 * t.row();
  const float* g = grad + t.out(head) + i0 * t.out_row();
  const float* o = out + t.out(head) + i0 * t.out_row();
  product(rows, row, width, {q, t.row(), 1}, m.keys, wide, m.p, row, false);
  product(rows, row, width, {g, t.out_row(), 1}, m.values, wide, m.dp, row, false);
  for (std::int64_t r = 0; r < rows; ++r) {
    float *p = m.p + r * row, *dp = m.dp + r * row;
    const std::int64_t own = i0 + r + 1;
    scale_scores(p, t.mask ? t.mask + (i0 + r) * t.shape.mask_row : nullptr, own, t.scale());
    exponentials(p, own, lse[(t.begin + i0 + r) * t.shape.heads + head]);
    score_gradient(p, dp, own, dot(g + r * t.out_row(), o + r * t.out_row(), width), t.scale());
    std::fill(p + own, p + row, 0.0F);
    std::fill(dp + own, dp + row, 0.0F);
  }
  product(rows, width, seen, {m.dp, row, 1}, qkv + t.key(), t.row(), dqkv + t.query(head) + i0 * t.row(), t.row(),
          false);
  product(seen, width, rows, {m.p, 1, row}, g, t.out_row(), m.dv, width, true);
  product(seen, width, rows, {m.dp, 1, row}, q, t.row(), m.dk, width, true);
}

void backward_task(const Task& t, const float* grad, const float* qkv, const float* out, const float* lse,
                   float* dqkv) {
  const std::int64_t width = t.shape.width, wide = padded(t.length), plane = width * wide;
  BackwardMemory m{};
  m.keys = work_memory(static_cast<std::size_t>(4 * plane + 2 * kBlock * wide));
  m.values = m.keys + plane, m.dk = m.values + plane, m.dv = m.dk + plane;
  m.p = m.dv + plane, m.dp = m.p + kBlock * wide;
  transpose(qkv + t.key(), t.row(), t.length, width, m.keys);
  transpose(qkv + t.value(), t.row(), t.length, width, m.values);
  std::fill(m.dk, m.dk + 2 * plane, 0.0F);
  for (std::int64_t head = t.kv_head * t.group(); head < (t.kv_head + 1) * t.group(); ++head)
    for (std::int64_t i0 = 0; i0 < t.length; i0 += kBlock)
      backward_block(t, m, head, i0, grad, qkv, out, lse, dqkv);
  for (std::int64_t i = 0; i < t.length; ++i) {
    std::copy_n(m.dk + i * width, width, dqkv + t.key() + i * t.row());
    std::copy_n(m.dv + i * width, width, dqkv + t.value() + i * t.row());
  }
}

template <class F>
void each_task(const AttentionShape& shape, const F& run) {
  const auto tasks = static_cast<std::int64_t>(shape.stretches.size()) * shape.kv_heads;
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t i = 0; i < tasks; ++i) {
    const auto which = static_cast<std::size_t>(i / shape.kv_heads);
    const Stretch& s = shape.stretches[which];
    if (s.length == 0) continue;
    const float* mask =
        shape.mask ? shape.mask + static_cast<std::int64_t>(which) * shape.mask_stride : nullptr;
    run(Task{shape, s.begin, s.length, i % shape.kv_heads, mask});
  }
}

}  // namespace

void attention(const AttentionShape& shape, const float* qkv, float* out, float* lse) {
  each_task(shape, [=](const Task& task) { forward_task(task, qkv, out, lse); });
}

void attention_backward(const AttentionShape& shape, const float* grad, const float* qkv, const float* out,
                        const float* lse, float* dqkv) {
  each_task(shape, [=](const Task& task) { backward_task(task, grad, qkv, out, lse, dqkv); });
}

}  // namespace llava::kernels
