#include "base/fields.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

namespace llava {

namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t changed = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j + 1] + 1, row[j] + 1, changed});
    }
  }
  return row[b.size()];
}

std::optional<std::size_t> list_index(std::string_view text) {
  std::size_t index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return index;
}

OrderedJson assigned_value(std::string_view text) {
  OrderedJson value = OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
  return value.is_discarded() ? OrderedJson(std::string(text)) : value;
}

/// The child of `node` that `path` starts with; `path` keeps what is left. Null for a key that is not there
/// yet.
OrderedJson* step_into(OrderedJson& node, std::string_view& path, std::string_view assignment) {
  std::size_t dot = path.find('.');
  if (node.is_object() && dot != std::string_view::npos) {
    if (node.contains(path)) dot = std::string_view::npos;
    for (std::size_t at = path.find('.', dot + 1);
         dot != std::string_view::npos && at != std::string_view::npos; at = path.find('.', at + 1))
      if (!node.contains(path.substr(0, dot)) && node.contains(path.substr(0, at))) dot = at;
  }
  const std::string_view key = path.substr(0, dot);
  path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
  if (key.empty()) fail(ErrorKind::kUsage, "--set {}: an empty key", assignment);
  if (node.is_null()) node = OrderedJson::object();
  if (node.is_object()) return &node[std::string(key)];
  if (!node.is_array())
    fail(ErrorKind::kUsage, "--set {}: \"{}\" has no parts (before \"{}\")", assignment, node.dump(), key);
  const auto index = list_index(key);
  if (!index || *index >= node.size())
    fail(ErrorKind::kUsage, "--set {}: \"{}\" is not an index of a list of {}", assignment, key,
         node.size());
  return &node[*index];
}

}  // namespace

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 2) + 1;
  for (const std::string& candidate : known) {
    const std::size_t distance =
        edit_distance(name.substr(0, 64), std::string_view(candidate).substr(0, 64));
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view name, const std::vector<std::string>& known) {
  const std::string nearest = nearest_name(name, known);
  return nearest.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", nearest);
}

OrderedJson parse_ordered_json(std::string_view text, std::string_view what) {
  parse_json(text, what);  // limits and messages
  return OrderedJson::parse(text);
}

void apply_assignment(OrderedJson& root, std::string_view assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    fail(ErrorKind::kUsage, "--set {}: expected key.sub=value", assignment);
  std::string_view path = assignment.substr(0, equals);
  OrderedJson* node = &root;
  while (!path.empty()) node = step_into(*node, path, assignment);
  *node = assigned_value(assignment.substr(equals + 1));
}

namespace fields_detail {

void wrong_type(const std::string& path, const char* wanted, const OrderedJson& value) {
  fail(ErrorKind::kInput, "{}: expected {}, not {}", path.empty() ? "config" : path, wanted,
       value.dump().substr(0, 80));
}

double read_number(const OrderedJson& value, const std::string& path) {
  if (!value.is_number()) wrong_type(path, "a number", value);
  const double number = value.get<double>();
  if (!std::isfinite(number)) wrong_type(path, "a finite number", value);
  return number;
}

std::int64_t read_integer(const OrderedJson& value, const std::string& path) {
  const double number = value.is_number() ? value.get<double>() : NAN;
  if (!(std::abs(number) < 9e15) || number != std::floor(number)) wrong_type(path, "an integer", value);
  return static_cast<std::int64_t>(number);
}

PatternNumbers read_pattern_numbers(const OrderedJson& value, const std::string& path) {
  if (value.is_number()) return {{"", read_number(value, path)}};
  if (!value.is_object()) wrong_type(path, "a number, or patterns with numbers", value);
  PatternNumbers numbers;
  for (const auto& [pattern, number] : value.items())
    numbers.emplace_back(pattern, read_number(number, path + "." + pattern));
  return numbers;
}

}  // namespace fields_detail

FieldReader::FieldReader(const OrderedJson& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object_.is_object()) fields_detail::wrong_type(path_, "keys with values", object_);
}

void FieldReader::finish() const {
  std::vector<std::string> unknown;
  for (const auto& [key, value] : object_.items())
    if (std::find(known_.begin(), known_.end(), key) == known_.end())
      unknown.push_back(
          fmt::format("\"{}{}{}\"{}", path_, path_.empty() ? "" : ".", key, did_you_mean(key, known_)));
  if (!unknown.empty())
    throw Error(ErrorKind::kInput,
                fmt::format("unknown key{} {}", unknown.size() > 1 ? "s" : "", fmt::join(unknown, ", ")),
                fmt::format("known here: {}", fmt::join(known_, ", ")));
}

}  // namespace llava
