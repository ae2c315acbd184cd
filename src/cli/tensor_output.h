#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"

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

/// pixel_values as the reference's processor lays them out: images [views,3,H,W] one behind another, or, where
/// llava-hf tiles, [images,views,3,H,W] with zeros for the views an image lacks.
at::Tensor reference_pixels(const std::vector<at::Tensor>& images, const CheckpointInfo& checkpoint);

}  // namespace llava
