#pragma once
#include <cstdint>
#include <string>

#include "vision/image.h"

namespace llava {

/// The image with its longer side at most `max_side`, as a JPEG file's bytes; for showing, not for
/// training. Empty in a build without the image libraries. Error as resize_image.
std::string thumbnail_jpeg(const Image& image, std::int64_t max_side, int quality = 80);

}  // namespace llava
