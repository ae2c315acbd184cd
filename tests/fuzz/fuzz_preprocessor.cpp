#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "vision/media_plan.h"
#include "vision/tile_geometry.h"

// Any bytes as a preprocessor_config.json; an accepted one must preprocess a small image, whatever its
// sizes say.
namespace {

llava::Image small_image(std::size_t seed) {
  const auto width = static_cast<std::int64_t>(1 + seed % 7),
             height = static_cast<std::int64_t>(1 + seed / 7 % 5);
  llava::Image image{width, height,
                     std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * 3))};
  for (std::size_t i = 0; i < image.rgb.size(); ++i)
    image.rgb[i] = static_cast<std::uint8_t>(37 * i + seed);
  return image;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace llava;
  try {
    const Json json = parse_json({reinterpret_cast<const char*>(data), size}, "preprocessor_config.json");
    const ImagePolicy policy = image_policy_from_json(json);
    const Image image = small_image(size);
    const TileGeometry g = tile_geometry({image.width, image.height}, policy);
    if (g.tile.width * g.tile.height > 1 << 16) return 0;  // allowed, but slow to fuzz
    const MediaPlan plan{.original = {image.width, image.height},
                         .num_tiles = 1,
                         .tile_height = g.tile.height,
                         .tile_width = g.tile.width};
    const std::vector<float> pixels = render_pixels(image, plan, policy);
    if (static_cast<std::int64_t>(pixels.size()) != g.tile.width * g.tile.height * 3) std::abort();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) std::abort();
  }
  return 0;
}
