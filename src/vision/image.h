#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/image_policy.h"

namespace llava {

/// 8-bit RGB pixels, row-major, 3 bytes a pixel.
struct Image {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;  ///< height * width * 3
};

struct ImageSize {
  std::int64_t width = 0, height = 0;
  bool operator==(const ImageSize&) const = default;
};

/// The bytes of an image file. Error{kInput}: missing, no file, or above the limit, whose option the hint names.
std::string read_image_file(const std::filesystem::path& path, const ImageLimits& limits = {});

/// Size of an encoded image from its header alone. Errors as decode_image. With `apply_exif_orientation` it
/// is the size after turning, as decode_image would return it.
ImageSize probe_image(std::string_view bytes, const ImageLimits& limits = {},
                      bool apply_exif_orientation = false);

/// Decodes JPEG, PNG, WebP, GIF (first frame) or BMP to what Pillow's Image.open(f).convert("RGB") gives:
/// exactly (CMYK JPEG within 3). `apply_exif_orientation` turns JPEG, PNG and WebP files upright.
/// Error{kInput|kFormat|kUnsupported} on anything else, truncated data, or a size above the limits (checked
/// from the header before any pixel buffer is allocated; the hint names the option that raises it). Stricter than Pillow on purpose: a file that ends
/// before its end marker is an error even when all pixels are there.
Image decode_image(std::string_view bytes, bool apply_exif_orientation = false,
                   const ImageLimits& limits = {});

/// Reads and decodes a file; errors start with its path.
Image load_image(const std::filesystem::path& path, bool apply_exif_orientation = false,
                 const ImageLimits& limits = {});

/// Pillow's Image.resize: separable, antialiased, fixed-point with 22 fractional bits, uint8 between the
/// passes. Error{kInput} for an empty image or target, Error{kResource} for a target above 2^31 bytes.
Image resize_image(const Image& image, std::int64_t width, std::int64_t height, ResampleFilter filter);

}  // namespace llava
