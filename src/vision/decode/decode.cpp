#include "vision/decode/codec.h"

#include <array>

namespace llava {

namespace {

using namespace std::string_view_literals;

struct Format {
  std::string_view name, magic;
  codec::Header (*probe)(std::string_view);
  codec::Decoded (*decode)(std::string_view, const ImageLimits&);
};

constexpr std::array<Format, 6> kFormats = {{
    {"JPEG", "\xFF\xD8\xFF"sv, codec::probe_jpeg, codec::decode_jpeg},
    {"PNG", "\x89PNG\r\n\x1A\n"sv, codec::probe_png, codec::decode_png},
    {"WebP", "RIFF"sv, codec::probe_webp, codec::decode_webp},
    {"GIF", "GIF87a"sv, codec::probe_gif, codec::decode_gif},
    {"GIF", "GIF89a"sv, codec::probe_gif, codec::decode_gif},
    {"BMP", "BM"sv, codec::probe_bmp, codec::decode_bmp},
}};

/// Formats people try that we do not read, so that the message can name them.
std::string_view foreign_format(std::string_view bytes) {
  if (bytes.size() >= 12 && bytes.substr(4, 4) == "ftyp") {
    const std::string_view brand = bytes.substr(8, 4);
    if (brand == "avif" || brand == "avis") return "AVIF";
    if (brand.starts_with("hei") || brand.starts_with("hev") || brand == "mif1" || brand == "msf1")
      return "HEIC";
    return "a video (MP4/QuickTime)";
  }
  if (bytes.starts_with("II*\0"sv) || bytes.starts_with("MM\0*"sv)) return "TIFF";
  if (bytes.starts_with("\xFF\x0A"sv) || bytes.starts_with("\0\0\0\x0CJXL "sv)) return "JPEG XL";
  if (bytes.starts_with("\0\0\0\x0CjP  "sv)) return "JPEG 2000";
  if (bytes.starts_with("%PDF")) return "PDF";
  if (bytes.starts_with("<svg") || bytes.starts_with("<?xml")) return "SVG or XML";
  return {};
}

const Format& find_format(std::string_view bytes, const ImageLimits& limits) {
  if (bytes.empty()) fail(ErrorKind::kInput, "the image is empty");
  if (static_cast<std::int64_t>(bytes.size()) > limits.max_bytes)
    throw Error(ErrorKind::kInput,
                fmt::format("the image file has {} bytes, at most {} are allowed", bytes.size(), limits.max_bytes),
                "--max-file-bytes N allows more");
  for (const Format& format : kFormats) {
    const bool riff_of_other_kind =
        format.magic == "RIFF" && (bytes.size() < 12 || bytes.substr(8, 4) != "WEBP");
    if (bytes.starts_with(format.magic) && !riff_of_other_kind) return format;
  }
  const std::string_view foreign = foreign_format(bytes);
  fail(ErrorKind::kUnsupported, "{} (supported are JPEG, PNG, WebP, GIF and BMP)",
       foreign.empty() ? "not an image in a known format"
                       : fmt::format("{} is not a supported image format", foreign));
}

}  // namespace

ImageSize probe_image(std::string_view bytes, const ImageLimits& limits, bool apply_exif_orientation) {
  const Format& format = find_format(bytes, limits);
  return with_context(format.name, [&] {
    const codec::Header header = format.probe(bytes);
    codec::check_size(header.size, limits);
    const bool swap = apply_exif_orientation && header.orientation >= 5;
    return swap ? ImageSize{header.size.height, header.size.width} : header.size;
  });
}

Image decode_image(std::string_view bytes, bool apply_exif_orientation, const ImageLimits& limits) {
  const Format& format = find_format(bytes, limits);
  return with_context(format.name, [&] {
    codec::Decoded decoded = format.decode(bytes, limits);
    return apply_exif_orientation ? codec::apply_orientation(std::move(decoded.image), decoded.orientation)
                                  : std::move(decoded.image);
  });
}

}  // namespace llava
