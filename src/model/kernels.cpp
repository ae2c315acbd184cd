#include "model/kernels.h"

#include <algorithm>
#include <cmath>

#include "model/row_math.h"

namespace llava::kernels {

namespace {

constexpr std::int64_t kLanes = 16;
/// Sum of f(i) over a row, in kLanes partial sums.
template <class F>
inline float lane_sum(std::int64_t columns, const F& f) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += f(i + lane);
  float sum = 0;
  for (; i < columns; ++i) sum += f(i);
  for (const float lane : lanes) sum += lane;
  return sum;
}

LLAVA_ROW void quantise_row(const float* __restrict x, const float* __restrict column_scale,
                            std::int64_t columns, std::int8_t* __restrict q, float* __restrict row_scale) {
  // absolute values compare like their bits; integers, unlike floats, may be compared in any order by the
  // compiler
  std::int32_t largest = 0;
  if (column_scale == nullptr) {
    for (std::int64_t i = 0; i < columns; ++i)
      largest = std::max(largest, __builtin_bit_cast(std::int32_t, x[i]) & 0x7fffffff);
  } else {
    for (std::int64_t i = 0; i < columns; ++i)
      largest = std::max(largest, __builtin_bit_cast(std::int32_t, x[i] * column_scale[i]) & 0x7fffffff);
  }
  const float top = __builtin_bit_cast(float, largest);
  *row_scale = top == 0 ? 1.0F : top / 127.0F;
  const float inverse = top == 0 ? 0.0F : 127.0F / top;
  if (column_scale == nullptr) {
    for (std::int64_t i = 0; i < columns; ++i)
      q[i] = static_cast<std::int8_t>(__builtin_bit_cast(std::int32_t, x[i] * inverse + kRounder));
  } else {
    for (std::int64_t i = 0; i < columns; ++i)
      q[i] = static_cast<std::int8_t>(
          __builtin_bit_cast(std::int32_t, x[i] * column_scale[i] * inverse + kRounder));
  }
}

template <bool kAdd>
inline void put(float value, float& out) {
  out = kAdd ? out + value : value;
}

template <bool kAdd>
inline void dequantise_into(const std::int32_t* __restrict sums, float row_scale,
                            const float* __restrict column_scale, std::int64_t columns, float* __restrict out) {
  if (column_scale == nullptr) {
    for (std::int64_t i = 0; i < columns; ++i) put<kAdd>(static_cast<float>(sums[i]) * row_scale, out[i]);
  } else {
    for (std::int64_t i = 0; i < columns; ++i)
      put<kAdd>(static_cast<float>(sums[i]) * (row_scale * column_scale[i]), out[i]);
  }
}

LLAVA_ROW void dequantise_row(const std::int32_t* __restrict sums, float row_scale,
                              const float* __restrict column_scale, std::int64_t columns, float* __restrict out,
                              bool add) {
  if (add) {
    dequantise_into<true>(sums, row_scale, column_scale, columns, out);
  } else {
    dequantise_into<false>(sums, row_scale, column_scale, columns, out);
  }
}

LLAVA_ROW void rms_norm_row(const float* __restrict x, const float* __restrict weight, float eps,
                            std::int64_t columns, float* __restrict out, float* __restrict inverse) {
  const float squares = lane_sum(columns, [&](std::int64_t i) { return x[i] * x[i]; });
  *inverse = 1.0F / std::sqrt(squares / static_cast<float>(columns) + eps);
  const float scale = *inverse;
  for (std::int64_t i = 0; i < columns; ++i) out[i] = weight[i] * (x[i] * scale);
}

LLAVA_ROW void rms_norm_backward_row(const float* __restrict grad, const float* __restrict x,
                                     const float* __restrict weight, float inverse, std::int64_t columns,
                                     float* __restrict dx) {
  const float dot = lane_sum(columns, [&](std::int64_t i) { return grad[i] * weight[i] * x[i]; });
  const float along = dot * inverse * inverse / static_cast<float>(columns);
  for (std::int64_t i = 0; i < columns; ++i) dx[i] = inverse * (grad[i] * weight[i] - x[i] * along);
}

LLAVA_ROW void silu_gate_row(const float* __restrict gate, const float* __restrict up, std::int64_t columns,
                             float* __restrict out) {
  for (std::int64_t i = 0; i < columns; ++i) out[i] = gate[i] / (1.0F + fast_exp(-gate[i])) * up[i];
}

LLAVA_ROW void silu_gate_backward_row(const float* __restrict grad, const float* __restrict gate,
                                      const float* __restrict up, std::int64_t columns,
                                      float* __restrict dgate, float* __restrict dup) {
  for (std::int64_t i = 0; i < columns; ++i) {
    const float sigmoid = 1.0F / (1.0F + fast_exp(-gate[i]));
    const float silu = gate[i] * sigmoid;
    dup[i] = grad[i] * silu;
    dgate[i] = grad[i] * up[i] * (sigmoid + silu * (1.0F - sigmoid));
  }
}

LLAVA_ROW void rotate_row(const float* __restrict x, const float* __restrict cos,
                          const float* __restrict sin, float sign, std::int64_t heads, std::int64_t width,
                          float* __restrict out) {
  const std::int64_t half = width / 2;
  for (std::int64_t h = 0; h < heads; ++h, x += width, out += width) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float s = sign * sin[i];
      out[i] = x[i] * cos[i] - x[half + i] * s;
      out[half + i] = x[half + i] * cos[i] + x[i] * s;
    }
  }
}

LLAVA_ROW void rotate_row_in_place(float* __restrict x, const float* __restrict cos,
                                   const float* __restrict sin, float sign, std::int64_t heads,
                                   std::int64_t width) {
  const std::int64_t half = width / 2;
  for (std::int64_t h = 0; h < heads; ++h, x += width) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float s = sign * sin[i], first = x[i], second = x[half + i];
      x[i] = first * cos[i] - second * s;
      x[half + i] = second * cos[i] + first * s;
    }
  }
}

/// The largest of a row.
LLAVA_ROW float row_max(const float* __restrict x, std::int64_t columns) {
  float lanes[kLanes];
  for (float& lane : lanes) lane = x[0];
  std::int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
  for (; i < columns; ++i) lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
  float top = lanes[0];
  for (const float lane : lanes) top = lane > top ? lane : top;
  return top;
}

/// e^(x - shift) in place, returns the sum.
LLAVA_ROW float row_exponentials(float* __restrict x, std::int64_t columns, float shift) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes)
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      x[i + lane] = fast_exp(x[i + lane] - shift);
      lanes[lane] += x[i + lane];
    }
  float sum = 0;
  for (; i < columns; ++i) sum += x[i] = fast_exp(x[i] - shift);
  for (const float lane : lanes) sum += lane;
  return sum;
}

LLAVA_ROW void row_scale(float* __restrict x, std::int64_t columns, float factor) {
  for (std::int64_t i = 0; i < columns; ++i) x[i] *= factor;
}

/// Calls row(r) for each row; on this thread alone where there is little to do.
template <class F>
void each_row(std::int64_t rows, std::int64_t columns, const F& row) {
  constexpr std::int64_t kWorthThreads = 1 << 15;
#pragma omp parallel for schedule(static) if (rows * columns > kWorthThreads)
  for (std::int64_t r = 0; r < rows; ++r) row(r);
}

}  // namespace

void quantise_rows(const float* x, std::int64_t stride, const float* column_scale, std::int64_t rows,
                   std::int64_t columns, std::int8_t* q, float* row_scale) {
  each_row(rows, columns, [=](std::int64_t r) {
    quantise_row(x + r * stride, column_scale, columns, q + r * columns, row_scale + r);
  });
}

void dequantise(const std::int32_t* sums, const float* row_scale, const float* column_scale,
                std::int64_t rows, std::int64_t columns, float* out, std::int64_t stride, bool add) {
  each_row(rows, columns, [=](std::int64_t r) {
    dequantise_row(sums + r * columns, row_scale[r], column_scale, columns, out + r * stride, add);
  });
}

void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t columns,
              float* out, float* inverse) {
  each_row(rows, columns, [=](std::int64_t r) {
    rms_norm_row(x + r * columns, weight, eps, columns, out + r * columns, inverse + r);
  });
}

void rms_norm_backward(const float* grad, const float* x, const float* weight, const float* inverse,
                       std::int64_t rows, std::int64_t columns, float* dx) {
  each_row(rows, columns, [=](std::int64_t r) {
    rms_norm_backward_row(grad + r * columns, x + r * columns, weight, inverse[r], columns,
                          dx + r * columns);
  });
}

void silu_gate(const float* gate, const float* up, std::int64_t rows, std::int64_t columns, float* out) {
  each_row(rows, columns, [=](std::int64_t r) {
    silu_gate_row(gate + r * columns, up + r * columns, columns, out + r * columns);
  });
}

void silu_gate_backward(const float* grad, const float* gate, const float* up, std::int64_t rows,
                        std::int64_t columns, float* dgate, float* dup) {
  each_row(rows, columns, [=](std::int64_t r) {
    silu_gate_backward_row(grad + r * columns, gate + r * columns, up + r * columns, columns,
                           dgate + r * columns, dup + r * columns);
  });
}

void rotate(const float* x, const float* cos, const float* sin, float sign, std::int64_t rows,
            std::int64_t heads, std::int64_t width, float* out) {
  const std::int64_t columns = heads * width, half = width / 2;
  each_row(rows, columns, [=](std::int64_t r) {
    rotate_row(x + r * columns, cos + r * half, sin + r * half, sign, heads, width, out + r * columns);
  });
}

void silu_gate_pairs(const float* gated, std::int64_t rows, std::int64_t columns, float* out) {
  each_row(rows, columns, [=](std::int64_t r) {
    const float* row = gated + 2 * r * columns;
    silu_gate_row(row, row + columns, columns, out + r * columns);
  });
}

void silu_gate_pairs_backward(const float* grad, const float* gated, std::int64_t rows, std::int64_t columns,
                              float* dgated) {
  each_row(rows, columns, [=](std::int64_t r) {
    const float* row = gated + 2 * r * columns;
    float* out = dgated + 2 * r * columns;
    silu_gate_backward_row(grad + r * columns, row, row + columns, columns, out, out + columns);
  });
}

void cross_entropy(float* logits, const std::int64_t* targets, std::int64_t rows, std::int64_t columns,
                   bool gradient, float* losses) {
  each_row(rows, columns, [=](std::int64_t r) {
    float* x = logits + r * columns;
    const float top = row_max(x, columns), wanted = x[targets[r]];
    const float sum = row_exponentials(x, columns, top);
    losses[r] = std::log(sum) + top - wanted;
    if (!gradient) return;
    row_scale(x, columns, 1.0F / sum);
    x[targets[r]] -= 1.0F;
  });
}

void rotate_in_place(float* x, std::int64_t row, const float* cos, const float* sin, float sign,
                     std::int64_t rows, std::int64_t heads, std::int64_t width) {
  const std::int64_t half = width / 2;
  each_row(rows, heads * width, [=](std::int64_t r) {
    rotate_row_in_place(x + r * row, cos + r * half, sin + r * half, sign, heads, width);
  });
}

}  // namespace llava::kernels
