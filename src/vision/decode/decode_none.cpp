#include "vision/image.h"
#include "vision/thumbnail.h"

// In place of decode.cpp and the codecs when configured with -DLLAVA_WITH_IMAGES=OFF.
namespace llava {

namespace {

[[noreturn]] void refuse() {
  fail(ErrorKind::kUnsupported,
       "built without image decoding; configure with -DLLAVA_WITH_IMAGES=ON to read image files");
}

}  // namespace

ImageSize probe_image(std::string_view, const ImageLimits&, bool) { refuse(); }

Image decode_image(std::string_view, bool, const ImageLimits&) { refuse(); }

std::string thumbnail_jpeg(const Image&, std::int64_t, int) { return {}; }

}  // namespace llava
