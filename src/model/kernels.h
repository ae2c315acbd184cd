#pragma once
#include <cstdint>

/// Loops over rows in memory that a chain of LibTorch operations would go through several times. Row-major
/// float32, no aliasing between inputs and outputs; rows are shared out between LibTorch's OpenMP threads.
namespace llava::kernels {

/// q = round(x * column_scale / row_scale) with row_scale = max |x * column_scale| / 127 of each row (1 for
/// a row of zeros). column_scale may be null. Rows of x begin `stride` numbers apart.
void quantise_rows(const float* x, std::int64_t stride, const float* column_scale, std::int64_t rows,
                   std::int64_t columns, std::int8_t* q, float* row_scale);

/// out = sums * row_scale * column_scale, or that is added to it; column_scale may be null. Rows of out begin `stride`
/// numbers apart.
void dequantise(const std::int32_t* sums, const float* row_scale, const float* column_scale,
                std::int64_t rows, std::int64_t columns, float* out, std::int64_t stride, bool add);

/// out = x * inverse * weight with inverse[row] = 1 / sqrt(mean(x^2) + eps).
void rms_norm(const float* x, const float* weight, float eps, std::int64_t rows, std::int64_t columns,
              float* out, float* inverse);
/// dx of the above.
void rms_norm_backward(const float* grad, const float* x, const float* weight, const float* inverse,
                       std::int64_t rows, std::int64_t columns, float* dx);

/// out = gate * sigmoid(gate) * up, and its gradients.
void silu_gate(const float* gate, const float* up, std::int64_t rows, std::int64_t columns, float* out);
void silu_gate_backward(const float* grad, const float* gate, const float* up, std::int64_t rows,
                        std::int64_t columns, float* dgate, float* dup);

/// The same for rows [gate|up] of 2*columns as one product leaves them; dgated in the same form.
void silu_gate_pairs(const float* gated, std::int64_t rows, std::int64_t columns, float* out);
void silu_gate_pairs_backward(const float* grad, const float* gated, std::int64_t rows, std::int64_t columns,
                              float* dgated);

/// Rows of logits [rows,columns] -> the loss of each, log sum exp - logit of its target, and with `gradient` in
/// place of the logits softmax - one at the target.
void cross_entropy(float* logits, const std::int64_t* targets, std::int64_t rows, std::int64_t columns,
                   bool gradient, float* losses);

/// Rotates the halves of each head by the row's angles: x [rows,heads,width], cos and sin [rows,width/2].
/// With sign -1 the other way round, which is the gradient.
void rotate(const float* x, const float* cos, const float* sin, float sign, std::int64_t rows,
            std::int64_t heads, std::int64_t width, float* out);
/// In place, for the first `heads` heads of rows that are `row` elements apart.
void rotate_in_place(float* x, std::int64_t row, const float* cos, const float* sin, float sign,
                     std::int64_t rows, std::int64_t heads, std::int64_t width);

}  // namespace llava::kernels
