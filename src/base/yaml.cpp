#include "base/yaml.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <set>

#include "base/error.h"
#include "base/fields.h"

namespace llava {

namespace {

constexpr std::size_t kMaxYamlBytes = std::size_t{4} << 20;
constexpr std::size_t kMaxYamlNodes = 200000;

template <class T>
bool parse_all(const std::string& text, T& value) {
  const char* begin = text.data() + (text.front() == '+');
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

OrderedJson scalar_to_json(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!" || text.empty()) return text;  // quoted
  if (text == "null" || text == "~" || text == "Null" || text == "NULL") return nullptr;
  if (text == "true" || text == "True" || text == "TRUE") return true;
  if (text == "false" || text == "False" || text == "FALSE") return false;
  std::int64_t integer = 0;
  if (parse_all(text, integer)) return integer;
  double number = 0;
  const bool looks_numeric = text.find_first_not_of("+-.0123456789eE") == std::string::npos;
  if (looks_numeric && parse_all(text, number)) return number;
  return text;
}

OrderedJson node_to_json(const YAML::Node& node, std::size_t depth, std::size_t& num_nodes,
                         std::string_view what) {
  if (depth > kMaxJsonDepth) fail(ErrorKind::kFormat, "{}: nested deeper than {}", what, kMaxJsonDepth);
  if (++num_nodes > kMaxYamlNodes)
    fail(ErrorKind::kFormat, "{}: more than {} values (aliases expanded)", what, kMaxYamlNodes);
  if (node.IsScalar()) return scalar_to_json(node);
  if (node.IsSequence()) {
    OrderedJson list = OrderedJson::array();
    for (const auto& item : node) list.push_back(node_to_json(item, depth + 1, num_nodes, what));
    return list;
  }
  if (!node.IsMap()) return nullptr;
  OrderedJson object = OrderedJson::object();
  std::set<std::string> seen;
  for (const auto& entry : node) {
    const int line = entry.first.Mark().line + 1;
    if (!entry.first.IsScalar()) fail(ErrorKind::kFormat, "{}: line {}: a key must be a text", what, line);
    const std::string& key = entry.first.Scalar();
    if (!seen.insert(key).second)
      fail(ErrorKind::kFormat, "{}: line {}: \"{}\" is there twice", what, line, key);
    object[key] = node_to_json(entry.second, depth + 1, num_nodes, what);
  }
  return object;
}

}  // namespace

OrderedJson parse_yaml(std::string_view text, std::string_view what) {
  if (text.size() > kMaxYamlBytes)
    fail(ErrorKind::kFormat, "{}: {} bytes are too many for a config", what, text.size());
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '{' && OrderedJson::accept(text))
    return parse_ordered_json(text, what);
  try {
    std::size_t num_nodes = 0;
    return node_to_json(YAML::Load(std::string(text)), 0, num_nodes, what);
  } catch (const YAML::Exception& e) {
    fail(ErrorKind::kFormat, "{}: line {}: {}", what, e.mark.line + 1, e.msg);
  }
}

}  // namespace llava
