#include "base/files.h"
#include "vision/image.h"

namespace llava {

std::string read_image_file(const std::filesystem::path& path, const ImageLimits& limits) {
  std::error_code missing;  // read_file says so better
  const auto size = std::filesystem::file_size(path, missing);
  if (!missing && size > static_cast<std::uintmax_t>(limits.max_bytes))
    throw Error(ErrorKind::kInput, fmt::format("{} has {} bytes, at most {} are allowed", path.string(), size, limits.max_bytes),
                "--max-file-bytes N allows more");
  return read_file(path, static_cast<std::size_t>(limits.max_bytes));
}

Image load_image(const std::filesystem::path& path, bool apply_exif_orientation,
                 const ImageLimits& limits) {
  const std::string bytes = read_image_file(path, limits);  // its errors name the path
  return with_context(path.string(), [&] { return decode_image(bytes, apply_exif_orientation, limits); });
}

}  // namespace llava
