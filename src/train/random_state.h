#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <vector>

namespace llava {

/// Where the generators stand that training draws from: the CPU's and, for another device, that device's.
class RandomState {
 public:
  /// Takes the states as they are now.
  explicit RandomState(c10::Device device);

  /// Puts the generators back where states() says.
  void restore() const;

  /// Bytes, the CPU's first; whoever reads a checkpoint copies into them and restores.
  const std::vector<at::Tensor>& states() const { return states_; }

 private:
  std::vector<c10::Device> devices_;
  std::vector<at::Tensor> states_;
};

}  // namespace llava
