#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <memory>
#include <string>
#include <string_view>

#include "formats/tensor_file.h"

namespace llava {

/// A file's tensor as an at::Tensor of dtype `wanted` on the CPU. Where the file holds that dtype
/// contiguous and aligned the result is a view on the mapped (read-only!) memory and keeps `owner` alive;
/// else it is converted or dequantised, rows in parallel. Error{kUnsupported} naming the tensor for dtypes
/// we have no arithmetic for (float8).
at::Tensor to_tensor(const TensorView& view, std::shared_ptr<const TensorFile> owner,
                     c10::ScalarType wanted);
/// The same in the stored dtype (quantised blocks: float32).
at::Tensor to_tensor(const TensorView& view, std::shared_ptr<const TensorFile> owner);
/// Whether to_tensor() would use the mapped memory itself.
bool is_in_place(const TensorView& view, c10::ScalarType wanted);

/// The ATen dtype of a stored one; kFloat for quantised blocks. Error{kUnsupported} for float8.
c10::ScalarType scalar_type(DType dtype);
/// The stored dtype of an ATen one, for writing. Error{kUnsupported} for those files cannot hold.
DType dtype_of(c10::ScalarType type);

/// "float32" | "fp32" | "f32" | "float", "float16" | "fp16" | "f16" | "half", "bfloat16" | "bf16",
/// "float64" | "fp64" | "double", also with "torch." in front. Error{kUsage} lists the names.
c10::ScalarType dtype_from_string(std::string_view name);
/// "float32", "bfloat16"…
std::string dtype_name(c10::ScalarType type);
/// "cpu", "cuda", "cuda:1", "auto" (CUDA if there is one). Error{kUsage} for other words, Error{kInput} if
/// the device is not there: LibTorch built without CUDA, no driver or GPU, index too high.
c10::Device device_from_string(std::string_view name);

/// Throws Error{kInternal} naming `what` unless `tensor` has this shape; -1 matches any size.
void check_shape(const at::Tensor& tensor, at::IntArrayRef shape, std::string_view what);
/// "[2, 3]".
std::string shape_text(at::IntArrayRef shape);

/// Adds a CPU copy of `tensor` to a safetensors file that is written later; the copy lives in the returned
/// holder.
class TensorWriter {
 public:
  void add(const std::string& name, const at::Tensor& tensor);
  void set_metadata(std::map<std::string, std::string> metadata) {
    writer_.set_metadata(std::move(metadata));
  }
  void write(const std::filesystem::path& path) const { writer_.write(path); }

 private:
  SafetensorsWriter writer_;
  std::vector<at::Tensor> kept_;  ///< contiguous CPU tensors the writer's spans point into
};

}  // namespace llava
