#include <algorithm>
#include <cstring>
#include <memory>

#include <gif_lib.h>

#include "vision/decode/codec.h"

namespace llava::codec {

namespace {

const char* text_of(int code) {
  const char* text = GifErrorString(code);
  return text != nullptr ? text : "unknown error";
}

struct Closer {
  void operator()(GifFileType* gif) const { DGifCloseFile(gif, nullptr); }
};

/// A GIF read up to its first picture.
class GifReader {
 public:
  explicit GifReader(std::string_view bytes) : rest_(bytes) {
    int code = 0;
    gif_.reset(DGifOpen(&rest_, on_read, &code));
    if (!gif_) fail(ErrorKind::kFormat, "{}", text_of(code));
    GifRecordType type = UNDEFINED_RECORD_TYPE;
    while (type != IMAGE_DESC_RECORD_TYPE) {
      check(DGifGetRecordType(gif_.get(), &type));
      if (type == TERMINATE_RECORD_TYPE) fail(ErrorKind::kFormat, "the file holds no picture");
      if (type == EXTENSION_RECORD_TYPE) read_extension();
    }
    check(DGifGetImageDesc(gif_.get()));
    if (gif_->Image.Width <= 0 || gif_->Image.Height <= 0)
      fail(ErrorKind::kFormat, "the first picture is empty");
  }

  const GifImageDesc& picture() const { return gif_->Image; }

  /// The screen, enlarged where the picture does not fit on it (Pillow).
  ImageSize canvas() const {
    const GifImageDesc& p = picture();
    return {std::max<std::int64_t>(gif_->SWidth, std::int64_t{p.Left} + p.Width),
            std::max<std::int64_t>(gif_->SHeight, std::int64_t{p.Top} + p.Height)};
  }

  Palette palette() const {
    const ColorMapObject* map = picture().ColorMap != nullptr ? picture().ColorMap : gif_->SColorMap;
    if (map == nullptr) return gray_palette();
    Palette palette;
    for (int i = 0; i < std::min(map->ColorCount, 256); ++i)
      palette.set(static_cast<std::size_t>(i), map->Colors[i].Red, map->Colors[i].Green,
                  map->Colors[i].Blue);
    return palette;
  }

  /// Index of the canvas around the picture: the transparent colour, or 0.
  std::uint8_t background() const { return background_; }

  void read_row(std::uint8_t* row) { check(DGifGetLine(gif_.get(), row, picture().Width)); }

 private:
  void check(int status) const {
    if (status == GIF_ERROR) fail(ErrorKind::kFormat, "{}", text_of(gif_->Error));
  }

  void read_extension() {
    int code = 0;
    GifByteType* block = nullptr;
    check(DGifGetExtension(gif_.get(), &code, &block));
    if (code == GRAPHICS_EXT_FUNC_CODE && block != nullptr && block[0] >= 4 && (block[1] & 1) != 0)
      background_ = block[4];
    while (block != nullptr) check(DGifGetExtensionNext(gif_.get(), &block));
  }

  static int on_read(GifFileType* gif, GifByteType* out, int n) {
    auto& rest = *static_cast<std::string_view*>(gif->UserData);
    const std::size_t count = std::min(rest.size(), static_cast<std::size_t>(n));
    std::memcpy(out, rest.data(), count);
    rest.remove_prefix(count);
    return static_cast<int>(count);
  }

  std::string_view rest_;
  std::unique_ptr<GifFileType, Closer> gif_;
  std::uint8_t background_ = 0;
};

}  // namespace

Header probe_gif(std::string_view bytes) { return {GifReader(bytes).canvas(), 1}; }

Decoded decode_gif(std::string_view bytes, const ImageLimits& limits) {
  GifReader reader(bytes);
  Decoded decoded{allocate(reader.canvas(), limits), 1};
  const std::int64_t width = decoded.image.width;
  std::uint8_t* indices = decoded.image.rgb.data();  // the first third of the buffer, until it is expanded
  const std::size_t pixels = decoded.image.rgb.size() / 3;
  std::memset(indices, reader.background(), pixels);
  const GifImageDesc& p = reader.picture();
  const auto read_row = [&](std::int64_t y) { reader.read_row(indices + (p.Top + y) * width + p.Left); };
  if (!p.Interlace) {
    for (std::int64_t y = 0; y < p.Height; ++y) read_row(y);
  } else {
    constexpr std::int64_t kPasses[4][2] = {{0, 8}, {4, 8}, {2, 4}, {1, 2}};  // first row, step
    for (const auto& [first, step] : kPasses)
      for (std::int64_t y = first; y < p.Height; y += step) read_row(y);
  }
  expand_palette(indices, pixels, reader.palette());
  return decoded;
}

}  // namespace llava::codec
