#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "vision/image.h"

/// What the file formats share. Each codec has a probe (header only, no pixel memory) and a decode.
namespace llava::codec {

struct Header {
  ImageSize size;
  int orientation = 1;  ///< EXIF tag 0x0112: 1 (upright) to 8
};

struct Decoded {
  Image image;
  int orientation = 1;
};

Header probe_jpeg(std::string_view bytes);
Header probe_png(std::string_view bytes);
Header probe_webp(std::string_view bytes);
Header probe_gif(std::string_view bytes);
Header probe_bmp(std::string_view bytes);

/// Each checks the size against `limits` before it allocates.
Decoded decode_jpeg(std::string_view bytes, const ImageLimits& limits);
Decoded decode_png(std::string_view bytes, const ImageLimits& limits);
Decoded decode_webp(std::string_view bytes, const ImageLimits& limits);
Decoded decode_gif(std::string_view bytes, const ImageLimits& limits);
Decoded decode_bmp(std::string_view bytes, const ImageLimits& limits);

/// Error{kFormat} for an empty image, Error{kInput} for one above the limits.
void check_size(const ImageSize& size, const ImageLimits& limits);

/// check_size, then a black image of that size.
Image allocate(const ImageSize& size, const ImageLimits& limits);

/// The orientation tag of a TIFF block ("II*\0" or "MM\0*"; a leading "Exif\0\0" is skipped); 1 where there
/// is none or the block is malformed, as viewers do.
int exif_orientation(std::string_view tiff);

/// The image turned upright.
Image apply_orientation(Image image, int orientation);

/// 256 RGB colours; those that a file does not define are black, as in Pillow.
struct Palette {
  void set(std::size_t index, std::uint8_t red, std::uint8_t green, std::uint8_t blue);
  std::uint8_t rgb[256][3] = {};
};

/// The gray of each index.
Palette gray_palette();

/// Replaces `count` palette indices by colours, in place: the indices are the first `count` bytes of a
/// buffer of 3 * count.
void expand_palette(std::uint8_t* buffer, std::size_t count, const Palette& palette);

}  // namespace llava::codec
