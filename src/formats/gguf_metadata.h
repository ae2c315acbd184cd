#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

/// Typed look-ups in a GGUF file's key/values (TensorFile::metadata()). Keys contain dots and are looked up
/// whole: `gguf_get<std::int64_t>(meta, "llama.block_count", "model.gguf")`. T: bool, std::int64_t, double,
/// std::string, or a std::vector of one of std::int64_t, std::int32_t, float, double, std::string.
namespace llava {

/// Error{kFormat} naming `what` and the key if it is there with another type.
template <class T>
std::optional<T> gguf_find(const Json& metadata, std::string_view key, std::string_view what);

/// The value, or Error{kFormat} naming `what` and the missing key.
template <class T>
T gguf_get(const Json& metadata, std::string_view key, std::string_view what) {
  std::optional<T> value = gguf_find<T>(metadata, key, what);
  if (!value) fail(ErrorKind::kFormat, "{}: GGUF key \"{}\" is missing", what, key);
  return *std::move(value);
}

template <class T>
T gguf_get_or(const Json& metadata, std::string_view key, T fallback, std::string_view what) {
  return gguf_find<T>(metadata, key, what).value_or(std::move(fallback));
}

}  // namespace llava
