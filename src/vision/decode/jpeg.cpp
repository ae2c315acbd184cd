#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <vector>

#include <jerror.h>
#include <jpeglib.h>

#include "vision/decode/codec.h"
#include "vision/scratch.h"

namespace llava::codec {

namespace {

/// A progressive file can ask for the whole image to be gone over again for a few bytes; real ones have
/// about ten scans.
constexpr int kMaxScans = 200;

/// libjpeg reports errors by a longjmp to the method that called it. So each method here holds no C++
/// object and returns false with error() set; C++ exceptions never meet C frames, and the destructor frees
/// libjpeg's memory.
class JpegReader {
 public:
  JpegReader() {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = on_error;
    errors_.base.emit_message = on_message;
  }
  ~JpegReader() {
    if (created_) jpeg_destroy_decompress(&info_);
  }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  bool read_header(std::string_view bytes) {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_create_decompress(&info_);
    created_ = true;
    jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    jpeg_save_markers(&info_, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&info_, TRUE);
    return true;
  }

  /// CMYK and YCCK come as CMYK, the rest as RGB. Upsampling and the inverse transform are libjpeg's
  /// defaults (smooth, accurate integer), as in Pillow.
  bool start() {
    if (setjmp(errors_.jump) != 0) return false;
    info_.out_color_space = info_.num_components == 4 ? JCS_CMYK : JCS_RGB;
    progress_.progress_monitor = on_progress;
    info_.progress = &progress_;
    jpeg_start_decompress(&info_);
    return true;
  }

  bool read_row(JSAMPLE* row) {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_read_scanlines(&info_, &row, 1);
    return true;
  }

  bool finish() {
    if (setjmp(errors_.jump) != 0) return false;
    jpeg_finish_decompress(&info_);
    return true;
  }

  ImageSize size() const { return {info_.image_width, info_.image_height}; }
  int components() const { return info_.num_components; }
  const char* error() const { return errors_.message; }

  int orientation() const {
    for (const jpeg_marker_struct* marker = info_.marker_list; marker != nullptr; marker = marker->next) {
      const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
      if (marker->marker == JPEG_APP0 + 1 && data.starts_with("Exif")) return exif_orientation(data);
    }
    return 1;
  }

 private:
  struct Errors {
    jpeg_error_mgr base;  // first: libjpeg's pointer to it is a pointer to us
    jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
  };

  static Errors& errors_of(j_common_ptr info) { return *reinterpret_cast<Errors*>(info->err); }

  [[noreturn]] static void on_error(j_common_ptr info) {
    Errors& errors = errors_of(info);
    errors.base.format_message(info, errors.message);
    std::longjmp(errors.jump, 1);
  }

  /// Warnings pass, as in Pillow, except those of missing data, where libjpeg would fill in gray.
  static void on_message(j_common_ptr info, int level) {
    const int code = info->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER)) on_error(info);
  }

  static void on_progress(j_common_ptr info) {
    if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
    Errors& errors = errors_of(info);
    std::snprintf(errors.message, sizeof(errors.message), "more than %d scans", kMaxScans);
    std::longjmp(errors.jump, 1);
  }

  jpeg_decompress_struct info_{};
  jpeg_progress_mgr progress_{};
  Errors errors_{};
  bool created_ = false;
};

void check(bool ok, const JpegReader& reader) {
  if (!ok) fail(ErrorKind::kFormat, "{}", reader.error());
}

void read_header(JpegReader& reader, std::string_view bytes) {
  check(reader.read_header(bytes), reader);
  if (reader.components() != 1 && reader.components() != 3 && reader.components() != 4)
    fail(ErrorKind::kUnsupported, "{} colour components", reader.components());
}

std::uint8_t product_255(unsigned a, unsigned b) {
  const unsigned x = a * b + 128;
  return static_cast<std::uint8_t>((x + (x >> 8)) >> 8);
}

/// Adobe stores inverted inks, and Pillow takes every four-component file to be Adobe's: the bytes are 255
/// - ink, so that each channel is ink-free white times the paper left by black.
void cmyk_row_to_rgb(const std::uint8_t* cmyk, std::int64_t width, std::uint8_t* rgb) {
  for (std::int64_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const unsigned white = cmyk[3];
    for (int c = 0; c < 3; ++c)
      rgb[c] = static_cast<std::uint8_t>(white - product_255(255U - cmyk[c], white));
  }
}

}  // namespace

Header probe_jpeg(std::string_view bytes) {
  JpegReader reader;
  read_header(reader, bytes);
  return {reader.size(), reader.orientation()};
}

Decoded decode_jpeg(std::string_view bytes, const ImageLimits& limits) {
  JpegReader reader;
  read_header(reader, bytes);
  check_size(reader.size(), limits);
  Decoded decoded{{reader.size().width, reader.size().height, {}}, reader.orientation()};
  Image& image = decoded.image;
  image.rgb = take_scratch(static_cast<std::size_t>(image.width * image.height * 3));  // every row is written below
  check(reader.start(), reader);
  const bool cmyk = reader.components() == 4;
  std::vector<std::uint8_t> inks(cmyk ? static_cast<std::size_t>(image.width) * 4 : 0);
  for (std::int64_t y = 0; y < image.height; ++y) {
    std::uint8_t* row = image.rgb.data() + y * image.width * 3;
    check(reader.read_row(cmyk ? inks.data() : row), reader);
    if (cmyk) cmyk_row_to_rgb(inks.data(), image.width, row);
  }
  check(reader.finish(), reader);
  return decoded;
}

}  // namespace llava::codec
