#include "vision/thumbnail.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>

namespace llava {

namespace {

struct JpegWriteErrors {
  jpeg_error_mgr base;
  std::jmp_buf jump;
};

/// libjpeg leaves by longjmp on errors, so no C++ object lives in here. False: no memory.
bool write_jpeg(const std::uint8_t* rgb, unsigned width, unsigned height, int quality, unsigned char** out,
                unsigned long* size) {
  JpegWriteErrors errors;
  jpeg_compress_struct info;
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = [](j_common_ptr common) {
    std::longjmp(reinterpret_cast<JpegWriteErrors*>(common->err)->jump, 1);
  };
  if (setjmp(errors.jump) != 0) {
    jpeg_destroy_compress(&info);
    return false;
  }
  jpeg_create_compress(&info);
  jpeg_mem_dest(&info, out, size);
  info.image_width = width;
  info.image_height = height;
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < height) {
    auto* row = const_cast<JSAMPLE*>(rgb + std::size_t{3} * width * info.next_scanline);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  return true;
}

}  // namespace

std::string thumbnail_jpeg(const Image& image, std::int64_t max_side, int quality) {
  const std::int64_t longer = std::max({image.width, image.height, std::int64_t{1}});
  const auto scaled = [&](std::int64_t side) {
    return std::max<std::int64_t>(1, side * max_side / longer);
  };
  const Image small = longer <= max_side ? image
                                         : resize_image(image, scaled(image.width), scaled(image.height),
                                                        ResampleFilter::kBicubic);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const bool written = write_jpeg(small.rgb.data(), static_cast<unsigned>(small.width),
                                  static_cast<unsigned>(small.height), quality, &bytes, &size);
  std::string file;
  if (written) file.assign(reinterpret_cast<const char*>(bytes), size);
  std::free(bytes);
  return file;
}

}  // namespace llava
