#pragma once
#include <fmt/ranges.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"

/// Configs as data: one `template <class V> void visit_fields(V& v, Config& c) { v("key", c.member); … }`
/// beside a struct gives reading with errors that name the key, writing, and the list of known keys. Key
/// order is kept (OrderedJson).
namespace llava {

/// The entry of `known` closest to `name` by edit distance, or "" if none is near enough to be a slip of
/// the pen.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

/// " (did you mean \"x\"?)", or "" where nothing is near.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& known);

/// Parses JSON keeping the order of keys; limits as parse_json.
OrderedJson parse_ordered_json(std::string_view text, std::string_view what);

/// `--set key.sub.0=value`: replaces or adds one value. Numbers step into lists; a value is JSON where it
/// parses as such, else a string. A key that itself contains dots is found if it exists, or set through its
/// parent ('lr={"^a\\.": 1}'). Error{kUsage} names the assignment and the part that does not fit.
void apply_assignment(OrderedJson& root, std::string_view assignment);

/// Names of an enum's values; specialise with `static constexpr std::pair<const char*, E> names[]`.
template <class E>
struct EnumTable;

/// Ordered pattern -> number pairs: `{'^a': 1e-3, '^b': 1e-4}`, or one number for everything (pattern "").
using PatternNumbers = std::vector<std::pair<std::string, double>>;

namespace fields_detail {

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

[[noreturn]] void wrong_type(const std::string& path, const char* wanted, const OrderedJson& value);
PatternNumbers read_pattern_numbers(const OrderedJson& value, const std::string& path);
std::int64_t read_integer(const OrderedJson& value, const std::string& path);
double read_number(const OrderedJson& value, const std::string& path);

}  // namespace fields_detail

/// Reads one JSON object into a struct; visit every field, then finish().
class FieldReader {
 public:
  /// `path` is put before keys in messages ("stages.0.optim").
  FieldReader(const OrderedJson& object, std::string path);
  template <class T>
  void operator()(const char* name, T& value) {
    known_.emplace_back(name);
    const auto it = object_.find(name);
    if (it != object_.end()) read(*it, value, path_.empty() ? name : path_ + "." + name);
  }
  /// Error{kInput} naming every key that no field has, with the nearest known one.
  void finish() const;

  template <class T>
  static void read(const OrderedJson& json, T& value, const std::string& path);

 private:
  const OrderedJson& object_;
  std::string path_;
  std::vector<std::string> known_;
};

/// Writes a struct as a JSON object, all fields, in declaration order.
class FieldWriter {
 public:
  template <class T>
  void operator()(const char* name, T& value) {
    out[name] = write(value);
  }
  template <class T>
  static OrderedJson write(T& value);
  OrderedJson out = OrderedJson::object();
};

template <class T>
T from_fields(const OrderedJson& json, const std::string& path = "") {
  T value;
  FieldReader::read(json, value, path);
  return value;
}

template <class T>
OrderedJson to_fields(T value) {
  return FieldWriter::write(value);
}

template <class T>
void FieldReader::read(const OrderedJson& json, T& value, const std::string& path) {
  using fields_detail::wrong_type;
  if constexpr (std::is_same_v<T, PatternNumbers>) {
    value = fields_detail::read_pattern_numbers(json, path);
  } else if constexpr (std::is_same_v<T, OrderedJson>) {
    value = json;
  } else if constexpr (fields_detail::IsOptional<T>::value) {
    if (json.is_null()) return value.reset();
    read(json, value.emplace(), path);
  } else if constexpr (fields_detail::IsVector<T>::value) {
    if (!json.is_array()) wrong_type(path, "a list", json);
    value.clear();
    for (std::size_t i = 0; i < json.size(); ++i) {
      typename T::value_type item{};
      read(json[i], item, path + "." + std::to_string(i));
      value.push_back(std::move(item));
    }
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) wrong_type(path, "true or false", json);
    value = json.get<bool>();
  } else if constexpr (std::is_enum_v<T>) {
    if (!json.is_string()) wrong_type(path, "a name", json);
    std::vector<std::string> names;
    for (const auto& [name, candidate] : EnumTable<T>::names) {
      if (json.get_ref<const std::string&>() == name) {
        value = candidate;
        return;
      }
      names.emplace_back(name);
    }
    fail(ErrorKind::kInput, "{}: {} is not one of {}{}", path, json.dump(), fmt::join(names, ", "),
         did_you_mean(json.get<std::string>(), names));
  } else if constexpr (std::is_integral_v<T>) {
    value = static_cast<T>(fields_detail::read_integer(json, path));
  } else if constexpr (std::is_floating_point_v<T>) {
    value = fields_detail::read_number(json, path);
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) wrong_type(path, "a text", json);
    value = json.get<std::string>();
  } else {
    FieldReader reader(json, path);
    visit_fields(reader, value);
    reader.finish();
  }
}

template <class T>
OrderedJson FieldWriter::write(T& value) {
  if constexpr (std::is_same_v<T, PatternNumbers>) {
    OrderedJson json = OrderedJson::object();
    for (const auto& [pattern, number] : value) json[pattern] = number;
    return json;
  } else if constexpr (fields_detail::IsOptional<T>::value) {
    return value ? write(*value) : OrderedJson(nullptr);
  } else if constexpr (fields_detail::IsVector<T>::value) {
    OrderedJson json = OrderedJson::array();
    for (auto& item : value) json.push_back(write(item));
    return json;
  } else if constexpr (std::is_enum_v<T>) {
    for (const auto& [name, candidate] : EnumTable<T>::names)
      if (candidate == value) return name;
    return nullptr;
  } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string> ||
                       std::is_same_v<T, OrderedJson>) {
    return value;
  } else {
    FieldWriter writer;
    visit_fields(writer, value);
    return std::move(writer.out);
  }
}

}  // namespace llava
