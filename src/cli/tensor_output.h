#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

namespace llava {

/// Collects tensors and writes them as one safetensors file, which appears complete or not at all.
class TensorOutput {
 public:
  /// Integers are stored as I64, all else as F32; undefined tensors are skipped.
  void add(const std::string& name, const at::Tensor& tensor);
  void write(const std::filesystem::path& path) const;

 private:
  std::vector<std::pair<std::string, at::Tensor>> tensors_;
};

}  // namespace llava
