#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "vision/image.h"

// Any bytes as an image file. What probe_image says must be what decode_image gives.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace llava;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  ImageLimits limits;
  limits.max_pixels = 1 << 20;  // keeps a run fast; the arithmetic of larger sizes is the same
  const bool upright = size % 2 == 1;
  ImageSize probed;
  try {
    probed = probe_image(bytes, limits, upright);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) std::abort();
  }
  try {
    const Image image = decode_image(bytes, upright, limits);
    if (probed != ImageSize{image.width, image.height}) std::abort();
    if (static_cast<std::int64_t>(image.rgb.size()) != image.width * image.height * 3) std::abort();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) std::abort();
  }
  return 0;
}
