#include "text/jinja_value.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"

namespace llava::jinja {

namespace {

constexpr std::size_t kMaxDepth = 200;
constexpr std::size_t kMaxWeight = std::size_t{1} << 50;

void add(const Value& item, std::size_t& weight, std::size_t& depth) {
  if (item.is_namespace()) fail(ErrorKind::kUnsupported, "a namespace inside a list or dict");
  weight = std::min(kMaxWeight, weight + item.weight());
  depth = std::max(depth, item.depth() + 1);
  if (depth > kMaxDepth) fail(ErrorKind::kResource, "a value is nested deeper than {}", kMaxDepth);
}

}  // namespace

Value Value::list(std::vector<Value> items) {
  auto list = std::make_shared<List>();
  for (const Value& item : items) add(item, list->weight, list->depth);
  list->items = std::move(items);
  return Value(Data(std::shared_ptr<const List>(std::move(list))));
}

Value Value::dict(std::vector<Entry> entries) {
  auto dict = std::make_shared<Dict>();
  for (const Entry& entry : entries) {
    add(entry.second, dict->weight, dict->depth);
    dict->weight = std::min(kMaxWeight, dict->weight + entry.first.size() / 64);
  }
  dict->entries = std::move(entries);
  return Value(Data(std::shared_ptr<const Dict>(std::move(dict))));
}

Value Value::from_json(const OrderedJson& json) {
  switch (json.type()) {
    case OrderedJson::value_t::boolean:
      return boolean(json.get<bool>());
    case OrderedJson::value_t::number_integer:
    case OrderedJson::value_t::number_unsigned:
      return integer(json.get<std::int64_t>());
    case OrderedJson::value_t::number_float:
      return real(json.get<double>());
    case OrderedJson::value_t::string:
      return string(json.get_ref<const std::string&>());
    case OrderedJson::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const OrderedJson& item : json) items.push_back(from_json(item));
      return list(std::move(items));
    }
    case OrderedJson::value_t::object: {
      std::vector<Entry> entries;
      for (const auto& [key, item] : json.items()) entries.emplace_back(key, from_json(item));
      return dict(std::move(entries));
    }
    default:
      return none();
  }
}

const std::vector<Value>& Value::items() const {
  return std::get<std::shared_ptr<const List>>(data_)->items;
}

const std::vector<Entry>& Value::entries() const {
  if (is_namespace()) return as_namespace().entries;
  return std::get<std::shared_ptr<const Dict>>(data_)->entries;
}

bool Value::truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_bool()) return as_bool();
  if (is_number()) return as_real() != 0;
  if (is_string()) return !as_string().empty();
  if (is_list()) return !items().empty();
  if (is_dict()) return !entries().empty();
  return true;
}

std::size_t Value::weight() const {
  if (is_string()) return 1 + as_string().size() / 64;
  if (is_list()) return std::get<std::shared_ptr<const List>>(data_)->weight;
  if (is_dict()) return std::get<std::shared_ptr<const Dict>>(data_)->weight;
  return 1;
}

std::size_t Value::depth() const {
  if (is_list()) return std::get<std::shared_ptr<const List>>(data_)->depth;
  if (is_dict()) return std::get<std::shared_ptr<const Dict>>(data_)->depth;
  return 1;
}

const Value* Value::find(std::string_view key) const {
  if (!is_dict() && !is_namespace()) return nullptr;
  for (const Entry& entry : entries())
    if (entry.first == key) return &entry.second;
  return nullptr;
}

const char* Value::kind_name() const {
  static constexpr std::array kNames = {"undefined", "none", "boolean",   "integer", "float",   "string",
                                        "list",      "dict", "namespace", "macro",   "function"};
  return kNames[data_.index()];
}

void Namespace::set(std::string_view name, Value value) {
  std::size_t weight = 0, depth = 0;
  add(value, weight, depth);
  for (Entry& entry : entries)
    if (entry.first == name) {
      entry.second = std::move(value);
      return;
    }
  entries.emplace_back(std::string(name), std::move(value));
}

namespace {

std::string real_text(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", d);
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

/// Python's repr() of a string, as far as str(list) needs it.
std::string quoted(const std::string& s) {
  const char quote = s.find('\'') != std::string::npos && s.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : s) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\\' || c == quote)
      (out += '\\') += c;
    else
      out += c;
  }
  return out += quote;
}

std::string element_text(const Value& value) {
  return value.is_string() ? quoted(value.as_string()) : to_text(value);
}

std::string json_string(const std::string& s) {
  return OrderedJson(s).dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

void write_json(const Value& value, int indent, int level, std::string& out) {
  const auto line = [&](int at) {
    if (indent >= 0)
      (out += '\n').append(static_cast<std::size_t>(indent) * static_cast<std::size_t>(at), ' ');
  };
  const bool is_list = value.is_list();
  if (is_list || value.is_dict()) {
    const std::size_t n = is_list ? value.items().size() : value.entries().size();
    out += is_list ? '[' : '{';
    for (std::size_t i = 0; i < n; ++i) {
      if (i > 0) out += indent >= 0 ? "," : ", ";
      line(level + 1);
      if (!is_list) (out += json_string(value.entries()[i].first)) += ": ";
      write_json(is_list ? value.items()[i] : value.entries()[i].second, indent, level + 1, out);
    }
    if (n > 0) line(level);
    out += is_list ? ']' : '}';
  } else if (value.is_string()) {
    out += json_string(value.as_string());
  } else if (value.is_none()) {
    out += "null";
  } else if (value.is_bool()) {
    out += value.as_bool() ? "true" : "false";
  } else if (value.is_number()) {
    out += to_text(value);
  } else {
    fail(ErrorKind::kFormat, "tojson: a value of kind {} cannot be written as JSON", value.kind_name());
  }
}

}  // namespace

std::string to_text(const Value& value) {
  if (value.is_string()) return value.as_string();
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.as_bool() ? "True" : "False";
  if (value.is_integer()) return std::to_string(value.as_integer());
  if (value.is_real()) return real_text(value.as_real());
  std::string out;
  if (value.is_list()) {
    for (const Value& item : value.items()) (out += out.empty() ? "[" : ", ") += element_text(item);
    return out.empty() ? "[]" : out += "]";
  }
  if (value.is_dict()) {
    for (const Entry& entry : value.entries())
      ((out += out.empty() ? "{" : ", ") += quoted(entry.first)).append(": ") += element_text(entry.second);
    return out.empty() ? "{}" : out += "}";
  }
  return value.is_undefined() ? "" : fmt::format("<{}>", value.kind_name());
}

std::string to_json(const Value& value, int indent) {
  std::string out;
  write_json(value, indent, 0, out);
  return out;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_real() || b.is_real()) return a.as_real() == b.as_real();
    return a.as_integer() == b.as_integer();
  }
  if (a.is_string() && b.is_string()) return a.as_string() == b.as_string();
  if (a.is_list() && b.is_list())
    return std::equal(a.items().begin(), a.items().end(), b.items().begin(), b.items().end(), equal);
  if (a.is_dict() && b.is_dict()) {
    if (a.entries().size() != b.entries().size()) return false;
    return std::all_of(a.entries().begin(), a.entries().end(), [&](const Entry& entry) {
      const Value* other = b.find(entry.first);
      return other != nullptr && equal(entry.second, *other);
    });
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_real() || b.is_real()) return a.as_real() < b.as_real();
    return a.as_integer() < b.as_integer();
  }
  if (a.is_string() && b.is_string()) return a.as_string() < b.as_string();
  if (a.is_list() && b.is_list())
    return std::lexicographical_compare(a.items().begin(), a.items().end(), b.items().begin(),
                                        b.items().end(), less);
  fail(ErrorKind::kFormat, "'<' between {} and {}", a.kind_name(), b.kind_name());
}

std::size_t code_point_size(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t want = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  for (std::size_t i = 1; i < want; ++i)
    if (at + i >= text.size() || (static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) return 1;
  return want;
}

std::size_t code_points(std::string_view text) {
  std::size_t n = 0;
  for (std::size_t at = 0; at < text.size(); at += code_point_size(text, at)) ++n;
  return n;
}

namespace {

bool is_space(std::string_view code_point) {
  if (code_point.size() == 1) {
    const char c = code_point[0];
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1C' && c <= '\x1F');
  }
  static constexpr std::array<std::string_view, 19> kSpaces = {
      "\u0085", "\u00A0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
      "\u2007", "\u2008", "\u2009", "\u200A", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"};
  return std::find(kSpaces.begin(), kSpaces.end(), code_point) != kSpaces.end();
}

template <class Strips>
std::string_view strip_if(std::string_view text, Side side, const Strips& strips) {
  if (side != Side::kRight)
    while (!text.empty()) {
      const std::size_t size = code_point_size(text, 0);
      if (!strips(text.substr(0, size))) break;
      text.remove_prefix(size);
    }
  if (side != Side::kLeft)
    while (!text.empty()) {
      std::size_t at = text.size() - 1;
      while (at > 0 && text.size() - at < 4 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
      if (at + code_point_size(text, at) != text.size()) at = text.size() - 1;
      if (!strips(text.substr(at))) break;
      text.remove_suffix(text.size() - at);
    }
  return text;
}

}  // namespace

std::string_view strip(std::string_view text, Side side) { return strip_if(text, side, is_space); }

std::string_view strip(std::string_view text, std::string_view chars, Side side) {
  return strip_if(text, side, [&](std::string_view code_point) {
    for (std::size_t at = 0; at < chars.size(); at += code_point_size(chars, at))
      if (chars.substr(at, code_point_size(chars, at)) == code_point) return true;
    return false;
  });
}

}  // namespace llava::jinja
