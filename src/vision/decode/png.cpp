#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include <png.h>

#include "vision/decode/codec.h"

namespace llava::codec {

namespace {

/// libpng reports errors by longjmp; see JpegReader for the rule that follows from it.
class PngReader {
 public:
  explicit PngReader(std::string_view bytes) : rest_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  /// Reads up to the first pixel. Every checksum counts; of the chunks that change no pixel only eXIf is
  /// kept, so nothing compressed but the pixels is ever unpacked.
  bool read_header() {
    if (info_ == nullptr) return set_error("out of memory");
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_read_fn(png_, this, on_read);
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // ours are checked next
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_AS_DEFAULT,
                                reinterpret_cast<const png_byte*>("eXIf"), 1);
    png_read_info(png_, info_);
    return true;
  }

  /// Asks for rows of gray (1 byte, or 2 at 16 bits), palette index (1 byte) or RGB, without alpha. Of
  /// 16-bit colour the high byte stays.
  bool start() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    const int type = png_get_color_type(png_, info_), depth = png_get_bit_depth(png_, info_);
    if (depth < 8 && type == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png_);
    if (depth < 8 && type == PNG_COLOR_TYPE_PALETTE) png_set_packing(png_);
    if (depth == 16 && type != PNG_COLOR_TYPE_GRAY) png_set_strip_16(png_);
    png_set_strip_alpha(png_);
    passes_ = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  /// Reads all rows, one after the other, into `pixels` (height() * row_bytes()).
  bool read_rows(std::uint8_t* pixels) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    const png_uint_32 rows = png_get_image_height(png_, info_);
    const std::size_t stride = png_get_rowbytes(png_, info_);
    for (int pass = 0; pass < passes_; ++pass)
      for (png_uint_32 y = 0; y < rows; ++y) png_read_row(png_, pixels + y * stride, nullptr);
    png_read_end(png_, nullptr);
    return true;
  }

  ImageSize size() const { return {png_get_image_width(png_, info_), png_get_image_height(png_, info_)}; }
  std::size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  int colour_type() const { return png_get_color_type(png_, info_); }
  int bit_depth() const { return png_get_bit_depth(png_, info_); }
  const char* error() const { return error_; }

  Palette palette() const {
    Palette palette;
    png_colorp colours = nullptr;
    int count = 0;
    png_get_PLTE(png_, info_, &colours, &count);
    for (int i = 0; i < count; ++i)
      palette.set(static_cast<std::size_t>(i), colours[i].red, colours[i].green, colours[i].blue);
    return palette;
  }

  int orientation() const {
    png_bytep data = nullptr;
    png_uint_32 size = 0;
    if (png_get_eXIf_1(png_, info_, &size, &data) == 0) return 1;
    return exif_orientation({reinterpret_cast<const char*>(data), size});
  }

 private:
  bool set_error(const char* text) {
    std::snprintf(error_, sizeof(error_), "%s", text);
    return false;
  }
  [[noreturn]] static void on_error(png_structp png, const char* text) {
    static_cast<PngReader*>(png_get_error_ptr(png))->set_error(text);
    png_longjmp(png, 1);
  }
  static void on_warning(png_structp, const char*) {}
  static void on_read(png_structp png, png_bytep out, std::size_t n) {
    auto& rest = static_cast<PngReader*>(png_get_io_ptr(png))->rest_;
    if (n > rest.size()) png_error(png, "the file is truncated");
    std::memcpy(out, rest.data(), n);
    rest.remove_prefix(n);
  }

  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::string_view rest_;
  int passes_ = 1;
  char error_[160] = "";
};

void check(bool ok, const PngReader& reader) {
  if (!ok) fail(ErrorKind::kFormat, "{}", reader.error());
}

/// 16-bit gray as Pillow's convert("RGB") has it: values, not their high bytes, clipped to 255.
void expand_gray16(std::uint8_t* buffer, std::size_t count) {
  for (std::size_t i = count; i-- > 0;) {
    const std::uint8_t value = buffer[2 * i] != 0 ? 255 : buffer[2 * i + 1];
    std::memset(buffer + 3 * i, value, 3);
  }
}

}  // namespace

Header probe_png(std::string_view bytes) {
  PngReader reader(bytes);
  check(reader.read_header(), reader);
  return {reader.size(), reader.orientation()};
}

Decoded decode_png(std::string_view bytes, const ImageLimits& limits) {
  PngReader reader(bytes);
  check(reader.read_header(), reader);
  Decoded decoded{allocate(reader.size(), limits), reader.orientation()};
  const int type = reader.colour_type();
  const bool gray16 = type == PNG_COLOR_TYPE_GRAY && reader.bit_depth() == 16;
  check(reader.start(), reader);
  std::uint8_t* buffer = decoded.image.rgb.data();
  const std::size_t pixels = decoded.image.rgb.size() / 3;
  const bool rgb = (type & PNG_COLOR_MASK_COLOR) != 0 && type != PNG_COLOR_TYPE_PALETTE;
  const std::size_t pixel_bytes = rgb ? 3 : gray16 ? 2 : 1;
  LLAVA_ASSERT(reader.row_bytes() * static_cast<std::size_t>(decoded.image.height) == pixels * pixel_bytes,
               "PNG row size");
  check(reader.read_rows(buffer), reader);
  if (gray16)
    expand_gray16(buffer, pixels);
  else if (!rgb)
    expand_palette(buffer, pixels, type == PNG_COLOR_TYPE_PALETTE ? reader.palette() : gray_palette());
  return decoded;
}

}  // namespace llava::codec
