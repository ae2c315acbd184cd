#pragma once
#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/variable.h>

#include <cstddef>
#include <vector>

namespace llava::fused {

/// A linear layer of a fused block: indices into the block's list of parameters; negative: none.
struct Part {
  std::size_t weight = 0;
  std::ptrdiff_t bias = -1, a = -1, b = -1;
  std::ptrdiff_t int8 = -1;  ///< the frozen weight in 8 bits, its rows' scales behind it
  double scale = 0;
};
/// Layers of one input, whose outputs lie side by side.
using Group = std::vector<Part>;

/// Products of float32 rows with groups of matrices, with their low-rank pairs, and their gradients. Matrices are
/// widened to float32 with the pair added (x W^T + s x A^T B^T = x (W + s B A)^T: a matrix has fewer rows than a
/// batch has tokens), or, for bfloat16 on a machine that is good at it, used as they are. Groups whose matrices are there in 8 bits are
/// multiplied so (int8_product.h), forwards and backwards, with their pairs beside them in float32.
class BlockProducts {
 public:
  BlockProducts(const std::vector<at::Tensor>& parameters, c10::ScalarType dtype);
  std::int64_t out_size(const Group& group) const;
  /// x [N,in] -> y [N,out], which is overwritten.
  void forward(const Group& group, const at::Tensor& x, at::Tensor& y) const;
  /// g [N,out] and x -> gx [N,in], which is overwritten, and the gradients of the parameters that want one.
  void backward(const Group& group, const at::Tensor& g, const at::Tensor& x, at::Tensor& gx,
                std::vector<at::Tensor>& grads) const;

 private:
  const at::Tensor& at(std::ptrdiff_t index) const { return parameters_[static_cast<std::size_t>(index)]; }
  bool direct(const Group& group) const;
  at::Tensor wide_matrix(const Group& group) const;
  void parameter_gradients(const Part& part, const at::Tensor& g, const at::Tensor& x,
                           std::vector<at::Tensor>& grads) const;
  void forward_int8(const Group& group, const at::Tensor& x, at::Tensor& y) const;
  void backward_int8(const Group& group, const at::Tensor& g, at::Tensor& gx) const;
  void forward_native(const Group& group, const at::Tensor& x, at::Tensor& y) const;
  void backward_native(const Group& group, const at::Tensor& g, at::Tensor& gx) const;

  std::vector<at::Tensor> parameters_;
  bool native_ = false;
};

/// A float32 view [rows,columns] of `buffer`, which grows when it is too small and is never given back.
at::Tensor grown(at::Tensor& buffer, std::int64_t rows, std::int64_t columns);

}  // namespace llava::fused
