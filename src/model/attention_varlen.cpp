#include "model/attention_varlen.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/log.h"

namespace llava {
namespace {

constexpr std::int64_t kWidestHead = 256;

bool has_kernel(const at::Tensor& q) {
  const bool half = q.scalar_type() == at::kHalf || q.scalar_type() == at::kBFloat16;
  return q.is_cuda() && half && q.size(3) % 8 == 0 && q.size(3) <= kWidestHead &&
         at::globalContext().userEnabledFlashSDP();
}

/// [B,H,T,d] -> [B*T,H,d]
at::Tensor end_to_end(const at::Tensor& x) { return x.transpose(1, 2).reshape({-1, x.size(1), x.size(3)}); }

at::Tensor run_kernel(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const AttentionPlan& plan) {
  std::int64_t longest = 0;
  for (const auto& row : plan.pieces)
    longest = std::max(longest, *std::max_element(row.begin(), row.end()));
  std::optional<std::int64_t> left, right;
  if (plan.window > 0 && longest > plan.window) left = plan.window - 1, right = 0;
  const at::Tensor out = std::get<0>(
      at::_flash_attention_forward(end_to_end(q), end_to_end(k), end_to_end(v), plan.starts, plan.starts,
                                   longest, longest, /*dropout_p=*/0.0, /*is_causal=*/true,
                                   /*return_debug_mask=*/false, /*scale=*/std::nullopt, left, right));
  return out.reshape({q.size(0), q.size(2), -1});
}

/// Numbers between -1 and 1 without the generators, whose states belong to the training.
at::Tensor wave(at::IntArrayRef shape, double step, const at::Tensor& like) {
  const std::int64_t count = c10::multiply_integers(shape);
  return at::arange(count, at::TensorOptions().dtype(at::kDouble))
      .mul(step)
      .sin()
      .view(shape)
      .to(like.options())
      .requires_grad_();
}

/// The result and the three gradients, as float32 on the CPU, end to end.
template <class Attend>
at::Tensor results(const Attend& attend, const at::Tensor& like, std::int64_t kv_heads,
                   const AttentionPlan& plan) {
  const std::int64_t tokens = 37, d = like.size(3);
  const at::Tensor q = wave({1, like.size(1), tokens, d}, 0.7, like),
                   k = wave({1, kv_heads, tokens, d}, 1.3, like),
                   v = wave({1, kv_heads, tokens, d}, 2.9, like);
  const at::Tensor out = attend(q, k, v, plan);
  (out * wave(out.sizes(), 0.3, like).detach()).sum().backward();
  std::vector<at::Tensor> flat;
  for (const at::Tensor& x : {out.detach(), q.grad(), k.grad(), v.grad()})
    flat.push_back(x.to(at::kFloat).cpu().flatten());
  return at::cat(flat);
}

bool agrees(const at::Tensor& like, std::int64_t kv_heads) {
  try {
    const at::AutoGradMode with_grad(true);
    for (const int window : {0, 6}) {
      AttentionPlan plan;
      plan.causal = true, plan.pieces = {{5, 17, 1, 14}}, plan.window = window;
      plan.starts = piece_starts(plan.pieces).to(like.device());
      const double error =
          (results(run_kernel, like, kv_heads, plan) - results(attend_pieces, like, kv_heads, plan))
              .abs()
              .max()
              .item<double>();
      if (!(error < 0.05)) {  // two roundings of 8 bits of numbers around 1
        log_warning("model",
                    "this GPU's varlen attention differs from the plain one by {:.3g}; packed samples are "
                    "attended one by one",
                    error);
        return false;
      }
    }
    return true;
  } catch (const std::exception& error) {
    log_warning("model", "this GPU has no varlen attention, packed samples are attended one by one: {}",
                std::string_view(error.what()).substr(0, std::string_view(error.what()).find('\n')));
    return false;
  }
}

}  // namespace

at::Tensor piece_starts(const std::vector<std::vector<std::int64_t>>& pieces) {
  std::vector<std::int32_t> starts = {0};
  for (const auto& row : pieces)
    for (const std::int64_t length : row)
      starts.push_back(starts.back() + static_cast<std::int32_t>(length));
  return at::tensor(starts, at::kInt);
}

std::optional<at::Tensor> attend_varlen(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                        const AttentionPlan& plan) {
  if (!has_kernel(q)) return std::nullopt;
  static const bool trusted = agrees(q, k.size(1));
  if (!trusted) return std::nullopt;
  return run_kernel(q, k, v, plan);
}

}  // namespace llava
