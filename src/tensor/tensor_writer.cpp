#include "tensor/convert.h"

namespace llava {

void TensorWriter::add(const std::string& name, const at::Tensor& tensor) {
  at::Tensor copy = tensor.detach().to(c10::kCPU).contiguous();
  const auto bytes =
      std::as_bytes(std::span(static_cast<const char*>(copy.const_data_ptr()), copy.nbytes()));
  writer_.add(name, dtype_of(copy.scalar_type()), copy.sizes().vec(), bytes);
  kept_.push_back(std::move(copy));
}

}  // namespace llava
