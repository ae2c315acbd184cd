#include <torch/torch.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "model/block_products.h"
#include "model/fused_block.h"
#include "model/kernels.h"
#include "model/ops.h"

namespace llava {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The CPU's way: logits become their gradient in place, in one pass (kernels.h).
class Sums {
 public:
  Sums(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets)
      : targets_(targets.contiguous()), fits_(hidden.device().is_cpu() && hidden.size(0) > 0) {
    if (!fits_) return;
    const c10::ScalarType type = fused::compute_type(hidden.scalar_type(), hidden.device());
    hidden_ = hidden.to(type);
    head_ = type == head.scalar_type() ? head.detach() : scratch(0, head.size(0), head.size(1)).copy_(head.detach());
    fits_ = type == at::kFloat || type == at::kBFloat16;
  }
  bool fits() const { return fits_; }
  /// Adds the loss of rows [begin, begin + length) to `sum`; d_hidden and d_head may be undefined.
  void chunk(std::int64_t begin, std::int64_t length, at::Tensor& sum, at::Tensor& d_hidden, at::Tensor& d_head) const {
    const at::Tensor rows = hidden_.narrow(0, begin, length);
    at::Tensor logits = scratch(1, length, head_.size(0)), losses = at::empty({length}, at::kFloat);
    if (head_.scalar_type() == at::kFloat) {
      at::mm_out(logits, rows, head_.t());
    } else {
      logits.copy_(at::mm(rows, head_.t()));
    }
    kernels::cross_entropy(logits.mutable_data_ptr<float>(), targets_.const_data_ptr<std::int64_t>() + begin, length,
                           logits.size(1), d_hidden.defined() || d_head.defined(), losses.mutable_data_ptr<float>());
    sum.add_(losses.sum());
    if (d_hidden.defined()) d_hidden.narrow(0, begin, length).copy_(at::mm(logits.to(head_.scalar_type()), head_));
    if (!d_head.defined()) return;
    if (head_.scalar_type() == at::kFloat) {
      d_head.addmm_(logits.t(), rows);
    } else {
      d_head.add_(at::mm(logits.to(head_.scalar_type()).t(), rows));
    }
  }

 private:
  /// Memory of this thread that steps use again: page faults on fresh memory cost as much as the arithmetic.
  static at::Tensor scratch(std::size_t which, std::int64_t rows, std::int64_t columns) {
    static thread_local std::array<at::Tensor, 2> buffers;
    return fused::grown(buffers[which], rows, columns);
  }
  at::Tensor hidden_, head_, targets_;
  bool fits_;
};

/// Computes the loss and, where asked for, d loss / d hidden and d loss / d head in the forward pass, chunk
/// by chunk: no [N,V] tensor lives longer than its chunk, and the matrix product with the head is not
/// repeated in the backward pass.
class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& head,
                            const at::Tensor& targets, std::int64_t chunk, bool hidden_grad,
                            bool head_grad) {
    const std::int64_t n = hidden.size(0);
    // chunks of one size: a short last one would go through the head as slowly as a long one
    if (n > chunk) chunk = (n + (n + chunk - 1) / chunk - 1) / ((n + chunk - 1) / chunk);
    at::Tensor sum = at::zeros({}, hidden.options().dtype(at::kFloat));
    at::Tensor d_hidden, d_head;
    if (hidden_grad) d_hidden = at::empty_like(hidden);
    if (head_grad) d_head = at::zeros(head.sizes(), head.options().dtype(at::kFloat));
    const Sums sums{hidden, head, targets};
    for (std::int64_t begin = 0; begin < n && sums.fits(); begin += chunk)
      sums.chunk(begin, std::min(chunk, n - begin), sum, d_hidden, d_head);
    for (std::int64_t begin = 0; begin < n && !sums.fits(); begin += chunk) {
      const std::int64_t len = std::min(chunk, n - begin);
      const at::Tensor rows = hidden.narrow(0, begin, len),
                       target = targets.narrow(0, begin, len).unsqueeze(1);
      at::Tensor log_probs = at::log_softmax(at::linear(rows, head).to(at::kFloat), -1);
      sum.sub_(log_probs.gather(1, target).sum());
      if (!hidden_grad && !head_grad) continue;
      at::Tensor d_logits = log_probs.exp_();
      d_logits.scatter_add_(1, target, at::full({len, 1}, -1.0, d_logits.options()));
      const at::Tensor d = d_logits.to(hidden.scalar_type());
      if (hidden_grad) d_hidden.narrow(0, begin, len).copy_(at::mm(d, head));
      if (head_grad) d_head.add_(at::mm(d.t(), rows));
    }
    ctx->save_for_backward({d_hidden, d_head});
    ctx->saved_data["head_dtype"] = static_cast<std::int64_t>(head.scalar_type());
    return sum;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list out(6);
    if (saved[0].defined()) out[0] = saved[0] * grads[0].to(saved[0].scalar_type());
    if (saved[1].defined())
      out[1] = (saved[1] * grads[0]).to(static_cast<at::ScalarType>(ctx->saved_data["head_dtype"].toInt()));
    return out;
  }
};

/// 64 MiB of float32.
constexpr std::int64_t kChunkElements = std::int64_t{1} << 24;

}  // namespace

std::int64_t loss_chunk(std::int64_t vocab_size) {
  return std::clamp<std::int64_t>(kChunkElements / vocab_size, 1, 4096);
}

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                                std::int64_t chunk) {
  LLAVA_ASSERT(hidden.dim() == 2 && targets.dim() == 1 && hidden.size(0) == targets.size(0),
               "rows and targets agree");
  if (targets.numel() > 0)
    LLAVA_ASSERT(targets.min().item<std::int64_t>() >= 0 && targets.max().item<std::int64_t>() < head.size(0),
                 "targets are rows of the head");
  const bool grad = at::GradMode::is_enabled();
  return LinearCrossEntropy::apply(hidden, head, targets, chunk, grad && hidden.requires_grad(),
                                   grad && head.requires_grad());
}

}  // namespace llava
