#include <torch/torch.h>

#include "base/error.h"
#include "model/ops.h"

namespace llava {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Computes the loss and, where asked for, d loss / d hidden and d loss / d head in the forward pass, chunk
/// by chunk: no [N,V] tensor lives longer than its chunk, and the matrix product with the head is not
/// repeated in the backward pass.
class LinearCrossEntropy : public torch::autograd::Function<LinearCrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& head,
                            const at::Tensor& targets, std::int64_t chunk, bool hidden_grad,
                            bool head_grad) {
    const std::int64_t n = hidden.size(0);
    at::Tensor sum = at::zeros({}, hidden.options().dtype(at::kFloat));
    at::Tensor d_hidden, d_head;
    if (hidden_grad) d_hidden = at::empty_like(hidden);
    if (head_grad) d_head = at::zeros(head.sizes(), head.options().dtype(at::kFloat));
    for (std::int64_t begin = 0; begin < n; begin += chunk) {
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

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                                std::int64_t chunk) {
  LLAVA_ASSERT(hidden.dim() == 2 && targets.dim() == 1 && hidden.size(0) == targets.size(0),
               "rows and targets agree");
  const bool grad = at::GradMode::is_enabled();
  return LinearCrossEntropy::apply(hidden, head, targets, chunk, grad && hidden.requires_grad(),
                                   grad && head.requires_grad());
}

}  // namespace llava
