#pragma once
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace llava {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

inline constexpr std::size_t kMaxJsonDepth = 128;

/// Parses hostile JSON text: nesting is limited to kMaxJsonDepth, duplicate work is linear, and invalid
/// UTF-8 or syntax is an Error{kFormat} that names `what` and the byte position.
Json parse_json(std::string_view text, std::string_view what);

/// Reads and parses a JSON file of at most `max_bytes`.
Json read_json_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{256} << 20);

/// Typed look-ups with errors that name the key: `json_get<int>(j, "hidden_size", "config.json")`.
template <class T>
T json_get(const Json& object, const char* key, std::string_view what);
/// The value of `key`, or `fallback` where it is absent or null.
template <class T>
T json_get_or(const Json& object, const char* key, T fallback, std::string_view what);

}  // namespace llava

#include "base/json_inl.h"
