#include "model/nf4_linear.h"

#include <torch/torch.h>

namespace llava {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class Nf4Product : public torch::autograd::Function<Nf4Product> {
 public:
  /// `nested` and `offset` stand for absent tensors where they are empty.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& packed,
                            const at::Tensor& absmax, const at::Tensor& nested, const at::Tensor& offset,
                            const Nf4Matrix* matrix, c10::ScalarType compute) {
    context->save_for_backward({packed, absmax, nested, offset});
    context->saved_data["shape"] = matrix->shape;
    context->saved_data["dtype"] = static_cast<std::int64_t>(matrix->dtype);
    context->saved_data["blocksize"] = matrix->blocksize;
    context->saved_data["compute"] = static_cast<std::int64_t>(compute);
    return at::linear(x.to(compute), dequantise_nf4(*matrix, compute)).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    auto& data = context->saved_data;
    Nf4Matrix matrix;
    matrix.packed = saved[0], matrix.absmax = saved[1];
    if (saved[2].numel() > 0) matrix.nested_absmax = saved[2], matrix.offset = saved[3];
    matrix.shape = data["shape"].toIntVector();
    matrix.dtype = static_cast<c10::ScalarType>(data["dtype"].toInt());
    matrix.blocksize = data["blocksize"].toInt();
    const auto compute = static_cast<c10::ScalarType>(data["compute"].toInt());
    const at::Tensor grad = at::matmul(grads[0].to(compute), dequantise_nf4(matrix, compute));
    variable_list out(7);
    out[0] = grad.to(grads[0].scalar_type());
    return out;
  }
};

}  // namespace

at::Tensor nf4_linear(const at::Tensor& x, const Nf4Matrix& weight, const at::Tensor& bias,
                      c10::ScalarType compute) {
  const at::Tensor none = at::empty({0}, weight.packed.options());
  const at::Tensor y = Nf4Product::apply(x, weight.packed, weight.absmax,
                                         weight.is_nested() ? weight.nested_absmax : none,
                                         weight.is_nested() ? weight.offset : none, &weight, compute);
  return bias.defined() ? y + bias : y;
}

}  // namespace llava
