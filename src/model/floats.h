#pragma once
#include <ATen/core/Tensor.h>

namespace llava::fused {

/// The numbers of a float32 tensor.
inline float* floats(at::Tensor& x) { return x.mutable_data_ptr<float>(); }
inline const float* floats(const at::Tensor& x) { return x.const_data_ptr<float>(); }

}  // namespace llava::fused
