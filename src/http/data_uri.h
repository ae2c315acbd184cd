#pragma once
#include <string>
#include <string_view>

namespace llava {

/// "image/png" and the like by a file's first bytes; "" for what is not JPEG, PNG, WebP, GIF or BMP.
std::string_view image_mime_type(std::string_view bytes);

/// "data:image/png;base64,…". Error{kInput} for what is no image in one of those formats.
std::string image_data_uri(std::string_view bytes);

}  // namespace llava
