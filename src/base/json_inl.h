#pragma once
#include "base/error.h"
#include "base/json.h"

namespace llava {

template <class T>
T json_get(const Json& object, const char* key, std::string_view what) {
  if (!object.is_object() || !object.contains(key))
    fail(ErrorKind::kFormat, "{}: key \"{}\" is missing", what, key);
  return json_get_or<T>(object, key, T{}, what);
}

template <class T>
T json_get_or(const Json& object, const char* key, T fallback, std::string_view what) {
  if (!object.is_object()) fail(ErrorKind::kFormat, "{}: expected a JSON object", what);
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return fallback;
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    if (!it->is_number_integer())
      fail(ErrorKind::kFormat, "{}: \"{}\" must be an integer, not {}", what, key, it->dump());
    if (it->is_number_unsigned() &&
        it->template get<std::uint64_t>() > std::uint64_t(std::numeric_limits<T>::max()))
      fail(ErrorKind::kFormat, "{}: \"{}\" is out of range: {}", what, key, it->dump());
  }
  try {
    return it->template get<T>();
  } catch (const nlohmann::json::exception&) {
    fail(ErrorKind::kFormat, "{}: \"{}\" has the wrong type: {}", what, key, it->dump().substr(0, 80));
  }
}

}  // namespace llava
