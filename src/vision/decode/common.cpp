#include <algorithm>
#include <cstring>
#include <utility>

#include "vision/decode/codec.h"

namespace llava::codec {

void check_size(const ImageSize& size, const ImageLimits& limits) {
  if (size.width <= 0 || size.height <= 0)
    fail(ErrorKind::kFormat, "the header says {} x {} pixels", size.width, size.height);
  if (size.width > limits.max_side || size.height > limits.max_side)
    throw Error(ErrorKind::kInput,
                fmt::format("{} x {} pixels: a side may be at most {}", size.width, size.height, limits.max_side),
                "--max-side N allows more");
  if (size.width > limits.max_pixels / size.height)
    throw Error(ErrorKind::kInput,
                fmt::format("{} x {} pixels: at most {} are allowed", size.width, size.height, limits.max_pixels),
                "--max-pixels N allows more");
}

Image allocate(const ImageSize& size, const ImageLimits& limits) {
  check_size(size, limits);
  Image image{size.width, size.height, {}};
  image.rgb.resize(static_cast<std::size_t>(size.width) * static_cast<std::size_t>(size.height) * 3);
  return image;
}

void Palette::set(std::size_t index, std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
  rgb[index][0] = red;
  rgb[index][1] = green;
  rgb[index][2] = blue;
}

Palette gray_palette() {
  Palette palette;
  for (std::size_t i = 0; i < 256; ++i) std::memset(palette.rgb[i], static_cast<int>(i), 3);
  return palette;
}

void expand_palette(std::uint8_t* buffer, std::size_t count, const Palette& palette) {
  for (std::size_t i = count; i-- > 0;) std::memcpy(buffer + 3 * i, palette.rgb[buffer[i]], 3);
}

namespace {

/// Bounds-checked reads in a TIFF block; past the end they give 0.
class TiffReader {
 public:
  TiffReader(std::string_view bytes, bool big_endian) : bytes_(bytes), big_endian_(big_endian) {}
  std::uint32_t u16(std::size_t at) const { return read(at, 2); }
  std::uint32_t u32(std::size_t at) const { return read(at, 4); }

 private:
  std::uint32_t read(std::size_t at, std::size_t n) const {
    if (at > bytes_.size() || bytes_.size() - at < n) return 0;
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < n; ++i)
      value = value << 8 | static_cast<std::uint8_t>(bytes_[at + (big_endian_ ? i : n - 1 - i)]);
    return value;
  }
  std::string_view bytes_;
  bool big_endian_;
};

}  // namespace

int exif_orientation(std::string_view tiff) {
  constexpr std::uint32_t kOrientationTag = 0x0112, kShort = 3;
  using std::string_view_literals::operator""sv;
  if (tiff.starts_with("Exif\0\0"sv)) tiff.remove_prefix(6);
  const bool big_endian = tiff.starts_with("MM\0*"sv);
  if (!big_endian && !tiff.starts_with("II*\0"sv)) return 1;
  const TiffReader reader(tiff, big_endian);
  const std::size_t directory = reader.u32(4);
  const std::uint32_t entries = reader.u16(directory);
  for (std::uint32_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + std::size_t{12} * i;
    if (reader.u16(entry) != kOrientationTag) continue;
    const std::uint32_t value = reader.u16(entry + 2) == kShort ? reader.u16(entry + 8) : 1;
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Image apply_orientation(Image image, int orientation) {
  if (orientation <= 1 || orientation > 8) return image;
  const bool swap = orientation >= 5;  // rows become columns
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image turned{image.width, image.height, std::vector<std::uint8_t>(image.rgb.size())};
  if (swap) std::swap(turned.width, turned.height);
  std::uint8_t* out = turned.rgb.data();
  for (std::int64_t y = 0; y < turned.height; ++y) {
    for (std::int64_t x = 0; x < turned.width; ++x, out += 3) {
      const std::int64_t column = swap ? y : x, row = swap ? x : y;  // before the flips
      const std::int64_t from_x = flip_x ? image.width - 1 - column : column;
      const std::int64_t from_y = flip_y ? image.height - 1 - row : row;
      std::memcpy(out, image.rgb.data() + (from_y * image.width + from_x) * 3, 3);
    }
  }
  return turned;
}

}  // namespace llava::codec
