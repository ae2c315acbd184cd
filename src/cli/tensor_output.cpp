#include "cli/tensor_output.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "formats/tensor_file.h"

namespace llava {

void TensorOutput::add(const std::string& name, const at::Tensor& tensor) {
  if (!tensor.defined()) return;
  const auto type = at::isFloatingType(tensor.scalar_type()) ? at::kFloat : at::kLong;
  tensors_.emplace_back(name, tensor.detach().to(at::kCPU, type).contiguous());
}

void TensorOutput::write(const std::filesystem::path& path) const {
  SafetensorsWriter writer;
  for (const auto& [name, tensor] : tensors_) {
    const auto dtype = tensor.scalar_type() == at::kFloat ? DType::kF32 : DType::kI64;
    writer.add(name, dtype, tensor.sizes().vec(),
               {static_cast<const std::byte*>(tensor.const_data_ptr()),
                static_cast<std::size_t>(tensor.nbytes())});
  }
  writer.write(path);
}

at::Tensor reference_pixels(const std::vector<at::Tensor>& images, const CheckpointInfo& checkpoint) {
  const bool tiled = checkpoint.layout == Layout::kHfLlava && checkpoint.image_policy &&
                     checkpoint.image_policy->aspect_ratio == AspectRatio::kAnyRes;
  if (!tiled) return at::cat(images, 0);
  std::int64_t views = 0;
  for (const at::Tensor& image : images) views = std::max(views, image.size(0));
  std::vector<at::Tensor> padded;
  for (const at::Tensor& image : images)
    padded.push_back(at::constant_pad_nd(image, {0, 0, 0, 0, 0, 0, 0, views - image.size(0)}));
  return at::stack(padded);
}

}  // namespace llava
