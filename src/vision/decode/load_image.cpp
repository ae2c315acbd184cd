#include "base/files.h"
#include "vision/image.h"

namespace llava {

Image load_image(const std::filesystem::path& path, bool apply_exif_orientation,
                 const ImageLimits& limits) {
  const std::string bytes =
      read_file(path, static_cast<std::size_t>(limits.max_bytes));  // its errors name the path
  return with_context(path.string(), [&] { return decode_image(bytes, apply_exif_orientation, limits); });
}

}  // namespace llava
