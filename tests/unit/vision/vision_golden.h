#pragma once
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "formats/tensor_file.h"
#include "support/golden.h"
#include "vision/image.h"

namespace llava::test {

/// A uint8 tensor [height, width, 3] as an image.
inline Image image_of(const TensorFile& file, const std::string& name) {
  const TensorView* view = file.find(name);
  if (view == nullptr || view->dtype != DType::kU8 || view->shape.size() != 3)
    throw std::runtime_error("no image " + name);
  Image image{view->shape[1], view->shape[0], std::vector<std::uint8_t>(view->bytes.size())};
  std::memcpy(image.rgb.data(), view->bytes.data(), view->bytes.size());
  return image;
}

inline std::vector<float> floats_of(const TensorFile& file, const std::string& name) {
  const TensorView* view = file.find(name);
  if (view == nullptr) throw std::runtime_error("no tensor " + name);
  std::vector<float> values(static_cast<std::size_t>(view->num_elements()));
  to_float32(*view, values);
  return values;
}

/// Largest difference of two images' bytes; 256 where the sizes differ.
inline int max_difference(const Image& a, const Image& b) {
  if (a.width != b.width || a.height != b.height || a.rgb.size() != b.rgb.size()) return 256;
  int worst = 0;
  for (std::size_t i = 0; i < a.rgb.size(); ++i)
    worst = std::max(worst, std::abs(int{a.rgb[i]} - int{b.rgb[i]}));
  return worst;
}

}  // namespace llava::test
