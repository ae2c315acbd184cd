#include "model/fused.h"

#include <torch/torch.h>

#include "model/floats.h"
#include "model/int8_product.h"
#include "model/kernels.h"

namespace llava::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

std::int64_t rows_of(const at::Tensor& x) { return x.numel() / x.size(-1); }

class RmsNorm : public Function<RmsNorm> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double eps) {
    at::Tensor out = at::empty_like(x), inverse = at::empty({rows_of(x)}, x.options());
    kernels::rms_norm(floats(x), floats(weight), static_cast<float>(eps), rows_of(x), x.size(-1),
                      floats(out), floats(inverse));
    context->save_for_backward({x, weight, inverse});
    return out;
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], grad = grads[0].contiguous();
    at::Tensor dx = at::empty_like(x);
    kernels::rms_norm_backward(floats(grad), floats(x), floats(saved[1]), floats(saved[2]), rows_of(x),
                               x.size(-1), floats(dx));
    return {dx, at::Tensor(), at::Tensor()};
  }
};

class SiluGate : public Function<SiluGate> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    at::Tensor out = at::empty_like(gate);
    kernels::silu_gate(floats(gate), floats(up), rows_of(gate), gate.size(-1), floats(out));
    context->save_for_backward({gate, up});
    return out;
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], grad = grads[0].contiguous();
    at::Tensor dgate = at::empty_like(gate), dup = at::empty_like(up);
    kernels::silu_gate_backward(floats(grad), floats(gate), floats(up), rows_of(gate), gate.size(-1),
                                floats(dgate), floats(dup));
    return {dgate, dup};
  }
};

at::Tensor rotated(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, float sign) {
  at::Tensor out = at::empty_like(x);
  kernels::rotate(floats(x), floats(cos), floats(sin), sign, x.size(0) * x.size(1), x.size(2), x.size(3),
                  floats(out));
  return out;
}

class Rotate : public Function<Rotate> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    return rotated(x, cos, sin, 1);
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    return {rotated(grads[0].contiguous(), saved[0], saved[1], -1), at::Tensor(), at::Tensor()};
  }
};

class Int8Linear : public Function<Int8Linear> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& values,
                            const at::Tensor& scales) {
    context->save_for_backward({values, scales});
    at::Tensor y = at::empty({x.size(0), values.size(0)}, x.options());
    int8_product(to_int8(x, {}), values.t(), scales, y);
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    at::Tensor dx = at::empty({grads[0].size(0), saved[0].size(1)}, grads[0].options());
    int8_product(to_int8(grads[0].contiguous(), saved[1]), saved[0], {}, dx);
    return {dx, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool fits(const at::Tensor& x) {
  return x.device().is_cpu() && x.scalar_type() == at::kFloat && x.numel() > 0;
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return RmsNorm::apply(x.contiguous(), weight.contiguous(), eps);
}

at::Tensor silu_gate(const at::Tensor& gate, const at::Tensor& up) {
  return SiluGate::apply(gate.contiguous(), up.contiguous());
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return Rotate::apply(x.contiguous(), cos.contiguous(), sin.contiguous());
}

Int8Matrix quantise(const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  const at::Tensor wide = weight.to(at::kFloat).contiguous();
  const Int8Rows rows = to_int8(wide, {});
  return {rows.values, rows.scales};
}

at::Tensor int8_linear(const at::Tensor& x, const Int8Matrix& weight, const at::Tensor& bias) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = weight.values.size(0);
  const at::Tensor y =
      Int8Linear::apply(x.flatten(0, -2).contiguous(), weight.values, weight.scales).view(shape);
  return bias.defined() ? y + bias : y;
}

}  // namespace llava::fused
