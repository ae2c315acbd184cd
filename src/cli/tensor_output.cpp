#include "cli/tensor_output.h"

#include <ATen/ATen.h>

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

}  // namespace llava
