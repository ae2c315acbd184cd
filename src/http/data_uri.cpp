#include "http/data_uri.h"

#include "base/base64.h"
#include "base/error.h"

namespace llava {

using namespace std::string_view_literals;

std::string_view image_mime_type(std::string_view bytes) {
  if (bytes.starts_with("\xFF\xD8\xFF"sv)) return "image/jpeg";
  if (bytes.starts_with("\x89PNG\r\n\x1A\n"sv)) return "image/png";
  if (bytes.starts_with("RIFF"sv) && bytes.size() >= 12 && bytes.substr(8, 4) == "WEBP") return "image/webp";
  if (bytes.starts_with("GIF87a"sv) || bytes.starts_with("GIF89a"sv)) return "image/gif";
  if (bytes.starts_with("BM"sv)) return "image/bmp";
  return {};
}

std::string image_data_uri(std::string_view bytes) {
  const std::string_view type = image_mime_type(bytes);
  if (type.empty()) fail(ErrorKind::kInput, "not an image in a known format (supported are JPEG, PNG, WebP, GIF and BMP)");
  return fmt::format("data:{};base64,{}", type, base64(bytes));
}

}  // namespace llava
