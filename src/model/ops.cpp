#include "model/ops.h"

#include <torch/torch.h>

#include "model/fused.h"

namespace llava {

at::Tensor activate(const at::Tensor& x, Activation act) {
  switch (act) {
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kQuickGelu:
      if (!(at::GradMode::is_enabled() && x.requires_grad())) return at::mul(x, 1.702).sigmoid_().mul_(x);
      return x * at::sigmoid(x * 1.702);
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kRelu:
      return at::relu(x);
  }
  return x;
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (fused::fits(x) && fused::fits(weight) && !weight.requires_grad())
    return fused::rms_norm(x, weight, eps);
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor normed = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  return weight * normed.to(x.scalar_type());
}

at::Tensor gated(const at::Tensor& gate, const at::Tensor& up, Activation act) {
  if (act == Activation::kSilu && fused::fits(gate)) return fused::silu_gate(gate, up);
  return activate(gate, act) * up;
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  if (fused::fits(x) && fused::fits(cos) && cos.size(0) == x.size(0)) return fused::rotate(x, cos, sin);
  const at::Tensor c = cos.unsqueeze(2).to(x.scalar_type()), s = sin.unsqueeze(2).to(x.scalar_type());
  const auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1);
}

}  // namespace llava
