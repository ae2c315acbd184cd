#include "formats/gguf_metadata.h"

#include <limits>

namespace llava {

namespace {

template <class T>
bool convert(const Json& value, T& out) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) return false;
    out = value.get<bool>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!value.is_string()) return false;
    out = value.get_ref<const std::string&>();
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.is_number()) return false;
    out = value.get<T>();
  } else {
    if (!value.is_number_integer()) return false;
    if (value.is_number_unsigned() &&
        value.get<std::uint64_t>() > std::uint64_t(std::numeric_limits<T>::max()))
      return false;
    const auto whole = value.get<std::int64_t>();
    if (whole < std::int64_t(std::numeric_limits<T>::min())) return false;
    out = static_cast<T>(whole);
  }
  return true;
}

template <class T>
bool convert(const Json& value, std::vector<T>& out) {
  if (!value.is_array()) return false;
  out.reserve(value.size());
  for (const Json& element : value) {
    T converted{};
    if (!convert(element, converted)) return false;
    out.push_back(std::move(converted));
  }
  return true;
}

}  // namespace

template <class T>
std::optional<T> gguf_find(const Json& metadata, std::string_view key, std::string_view what) {
  const auto it = metadata.find(key);
  if (it == metadata.end()) return std::nullopt;
  T value{};
  if (!convert(*it, value))
    fail(ErrorKind::kFormat, "{}: GGUF key \"{}\" has the wrong type or is out of range ({})", what, key,
         it->type_name());
  return value;
}

#define LLAVA_GGUF_FIND(...)                                                                \
  template std::optional<__VA_ARGS__> gguf_find<__VA_ARGS__>(const Json&, std::string_view, \
                                                             std::string_view)
LLAVA_GGUF_FIND(bool);
LLAVA_GGUF_FIND(std::int64_t);
LLAVA_GGUF_FIND(double);
LLAVA_GGUF_FIND(std::string);
LLAVA_GGUF_FIND(std::vector<std::int64_t>);
LLAVA_GGUF_FIND(std::vector<std::int32_t>);
LLAVA_GGUF_FIND(std::vector<float>);
LLAVA_GGUF_FIND(std::vector<double>);
LLAVA_GGUF_FIND(std::vector<std::string>);
#undef LLAVA_GGUF_FIND

}  // namespace llava
