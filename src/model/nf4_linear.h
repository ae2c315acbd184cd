#pragma once
#include <ATen/core/Tensor.h>

#include "tensor/nf4.h"

namespace llava {

/// x [...,in] W^T + b for a frozen W in 4 bits: W is unpacked for the product and again for the gradient of
/// x, so a step keeps neither it nor x. Products are made in `compute`; the result has x's dtype.
at::Tensor nf4_linear(const at::Tensor& x, const Nf4Matrix& weight, const at::Tensor& bias,
                      c10::ScalarType compute);

}  // namespace llava
