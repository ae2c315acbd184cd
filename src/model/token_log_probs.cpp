#include <torch/torch.h>

#include "base/error.h"
#include "model/ops.h"

namespace llava {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// log p of each row's target, chunk by chunk. The gradient of a row's value by its hidden state,
/// (head[target] - sum p_v head[v]) / temperature, needs the probabilities only here, so it is made in the
/// forward pass and kept, [N,D]; a trained head repeats its logits in the backward pass, because each row's
/// weight is known only then.
class LinearLogProbs : public torch::autograd::Function<LinearLogProbs> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& head,
                            const at::Tensor& targets, double temperature, std::int64_t chunk,
                            bool hidden_grad, bool head_grad) {
    const std::int64_t n = hidden.size(0);
    at::Tensor values = at::empty({n}, hidden.options().dtype(at::kFloat));
    at::Tensor slopes;
    if (hidden_grad) slopes = at::empty_like(hidden);
    for (std::int64_t begin = 0; begin < n; begin += chunk) {
      const std::int64_t len = std::min(chunk, n - begin);
      at::Tensor log_probs = log_softmax_rows(hidden.narrow(0, begin, len), head, temperature);
      const at::Tensor target = targets.narrow(0, begin, len).unsqueeze(1);
      values.narrow(0, begin, len).copy_(log_probs.gather(1, target).squeeze(1));
      if (!hidden_grad) continue;
      at::Tensor d_logits = log_probs.exp_().neg_();
      d_logits.scatter_add_(1, target, at::ones({len, 1}, d_logits.options()));
      if (temperature != 1) d_logits.div_(temperature);
      slopes.narrow(0, begin, len).copy_(at::mm(d_logits.to(head.scalar_type()), head));
    }
    variable_list saved = {slopes, {}, {}, {}};
    if (head_grad) saved = {slopes, hidden, head, targets};
    ctx->save_for_backward(saved);
    ctx->saved_data["temperature"] = temperature;
    ctx->saved_data["chunk"] = chunk;
    return values;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list out(7);
    const at::Tensor weights = grads[0].unsqueeze(1);  // [N,1] float32
    if (saved[0].defined()) out[0] = (saved[0] * weights).to(saved[0].scalar_type());
    if (saved[2].defined())
      out[1] = head_gradient(saved[1], saved[2], saved[3], weights,
                             ctx->saved_data["temperature"].toDouble(), ctx->saved_data["chunk"].toInt());
    return out;
  }

 private:
  static at::Tensor log_softmax_rows(const at::Tensor& rows, const at::Tensor& head, double temperature) {
    at::Tensor logits = at::linear(rows, head).to(at::kFloat);
    if (temperature != 1) logits.div_(temperature);
    return at::log_softmax(logits, -1);
  }

  static at::Tensor head_gradient(const at::Tensor& hidden, const at::Tensor& head,
                                  const at::Tensor& targets, const at::Tensor& weights, double temperature,
                                  std::int64_t chunk) {
    at::Tensor d_head = at::zeros(head.sizes(), head.options().dtype(at::kFloat));
    for (std::int64_t begin = 0; begin < hidden.size(0); begin += chunk) {
      const std::int64_t len = std::min(chunk, hidden.size(0) - begin);
      const at::Tensor rows = hidden.narrow(0, begin, len);
      at::Tensor d_logits = log_softmax_rows(rows, head, temperature).exp_().neg_();
      d_logits.scatter_add_(1, targets.narrow(0, begin, len).unsqueeze(1),
                            at::ones({len, 1}, d_logits.options()));
      d_logits.mul_(weights.narrow(0, begin, len)).div_(temperature);
      d_head.add_(at::mm(d_logits.to(head.scalar_type()).t(), rows));
    }
    return d_head.to(head.scalar_type());
  }
};

}  // namespace

at::Tensor linear_log_probs(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                            double temperature, std::int64_t chunk) {
  LLAVA_ASSERT(hidden.dim() == 2 && targets.dim() == 1 && hidden.size(0) == targets.size(0),
               "rows and targets agree");
  LLAVA_ASSERT(temperature > 0, "a temperature above 0");
  const bool grad = at::GradMode::is_enabled();
  return LinearLogProbs::apply(hidden, head, targets, temperature, chunk, grad && hidden.requires_grad(),
                               grad && head.requires_grad());
}

}  // namespace llava
