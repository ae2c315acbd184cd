#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>
#include <filesystem>

#include "base/error.h"
#include "config/image_policy.h"

namespace llava {

/// 8-bit RGB pixels, row-major, 3 bytes a pixel.
struct Image {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;           ///< height * width * 3
};

struct ImageSize { std::int64_t width = 0, height = 0; bool operator==(const ImageSize&) const = default; };

/// Size of an encoded image from its header alone. Errors as decode_image.
ImageSize probe_image(std::string_view bytes, const ImageLimits& limits = {});

/// Decodes JPEG, PNG, WebP, GIF (first frame) or BMP to what Pillow's Image.open(f).convert("RGB") gives: exactly (CMYK JPEG
/// within 3). `apply_exif_orientation` turns JPEGs upright. Error{kInput|kFormat|kUnsupported} on anything else, truncated
/// data, or a size above the limits (checked from the header before any pixel buffer is allocated).
Image decode_image(std::string_view bytes, bool apply_exif_orientation = false, const ImageLimits& limits = {});
Image load_image(const std::filesystem::path& path, bool apply_exif_orientation = false, const ImageLimits& limits = {});

/// Pillow's Image.resize: separable, antialiased, fixed-point with 22 fractional bits, uint8 between the passes.
Image resize_image(const Image& image, std::int64_t width, std::int64_t height, ResampleFilter filter);

}  // namespace llava
