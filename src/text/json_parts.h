#pragma once
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace llava {

/// The array or object under `key`, without a copy (nested parts of hostile files must not be copied level
/// by level). Error{kFormat} names `what` and the key.
inline const Json& json_array(const Json& object, const char* key, std::string_view what) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || it == object.end() || !it->is_array())
    fail(ErrorKind::kFormat, "{}: \"{}\" must be an array", what, key);
  return *it;
}
inline const Json& json_object(const Json& object, const char* key, std::string_view what) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || it == object.end() || !it->is_object())
    fail(ErrorKind::kFormat, "{}: \"{}\" must be an object", what, key);
  return *it;
}

}  // namespace llava
