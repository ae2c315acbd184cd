#include <ATen/ops/empty.h>

#include "loader/load_model.h"
#include "model/build_model.h"

namespace llava {
namespace {

class ShapeReader final : public WeightReader {
 public:
  explicit ShapeReader(c10::ScalarType dtype) : dtype_(dtype) {}
  at::Tensor read(const std::string& /*name*/, const std::vector<std::int64_t>& shape) override {
    return at::empty(shape, at::TensorOptions().dtype(dtype_).device(c10::kMeta));
  }

 private:
  c10::ScalarType dtype_;
};

}  // namespace

std::unique_ptr<LlavaModel> shape_model(const ModelConfig& config, c10::ScalarType dtype) {
  const c10::InferenceMode trainable_tensors(false);
  ShapeReader reader(dtype);
  return build_model(config, reader, dtype, c10::kMeta);
}

}  // namespace llava
