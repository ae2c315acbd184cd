#include <algorithm>
#include <array>
#include <ctime>

#include "text/jinja_runtime.h"

namespace llava::jinja {

namespace {

/// Maps one two-byte UTF-8 letter (Latin-1, Greek, Cyrillic); false if it has no simple partner there.
bool map_two_byte(std::uint32_t& code, bool upper) {
  struct Range {
    std::uint32_t first, last, offset;  // of the capitals; offset to the small letters
  };
  static constexpr std::array kRanges = {Range{0xC0, 0xD6, 32},   Range{0xD8, 0xDE, 32},
                                         Range{0x391, 0x3A1, 32}, Range{0x3A3, 0x3AB, 32},
                                         Range{0x410, 0x42F, 32}, Range{0x400, 0x40F, 80}};
  for (const Range& r : kRanges) {
    if (!upper && code >= r.first && code <= r.last) return code += r.offset, true;
    if (upper && code >= r.first + r.offset && code <= r.last + r.offset) return code -= r.offset, true;
  }
  return false;
}

/// `upper_at(previous is a letter)` decides the case of each letter.
template <class UpperAt>
std::string map_case(std::string_view text, const UpperAt& upper_at) {
  std::string out(text);
  bool in_word = false;
  for (std::size_t at = 0; at < out.size();) {
    const std::size_t size = code_point_size(text, at);
    bool is_letter = size > 1;
    if (size == 1) {
      char& c = out[at];
      const bool capital = c >= 'A' && c <= 'Z', small = c >= 'a' && c <= 'z';
      is_letter = capital || small;
      if (is_letter && upper_at(in_word) != capital) c = static_cast<char>(c ^ 0x20);
    } else if (size == 2) {
      std::uint32_t code = (static_cast<unsigned char>(out[at]) & 0x1FU) << 6 |
                           (static_cast<unsigned char>(out[at + 1]) & 0x3FU);
      if (map_two_byte(code, upper_at(in_word))) {
        out[at] = static_cast<char>(0xC0 | code >> 6);
        out[at + 1] = static_cast<char>(0x80 | (code & 0x3F));
      }
    }
    in_word = is_letter;
    at += size;
  }
  return out;
}

}  // namespace

std::string to_upper(std::string_view text) {
  return map_case(text, [](bool) { return true; });
}
std::string to_lower(std::string_view text) {
  return map_case(text, [](bool) { return false; });
}
std::string to_title(std::string_view text) {
  return map_case(text, [](bool in_word) { return !in_word; });
}

std::string capitalize(std::string_view text) {
  const std::size_t first = text.empty() ? 0 : code_point_size(text, 0);
  return to_upper(text.substr(0, first)) + to_lower(text.substr(first));
}

std::string replace_all(Budget& budget, std::string_view text, std::string_view from, std::string_view to,
                        std::int64_t count) {
  std::string out;
  std::size_t at = 0;
  const auto copy_one = [&] {
    if (at >= text.size()) return;
    const std::size_t size = code_point_size(text, at);
    out += text.substr(at, size);
    at += size;
  };
  while (count != 0) {
    const std::size_t found = text.find(from, at);
    if (found == std::string_view::npos || found > text.size()) break;
    budget.charge(1 + to.size() / 64);
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
    if (count > 0) --count;
    if (!from.empty()) continue;
    if (at >= text.size()) return out;
    copy_one();  // an empty pattern matches between the characters
  }
  return out += text.substr(std::min(at, text.size()));
}

std::string join(Budget& budget, const std::vector<Value>& items, std::string_view separator) {
  std::string out;
  for (std::size_t i = 0; i < items.size(); ++i) {
    budget.charge(items[i].weight() + separator.size() / 64);
    if (i > 0) out += separator;
    out += to_text(items[i]);
  }
  return out;
}

namespace {

std::vector<Value> split_white(std::string_view text, std::int64_t limit) {
  std::vector<Value> parts;
  for (text = strip(text, Side::kLeft); !text.empty(); text = strip(text, Side::kLeft)) {
    std::size_t end = 0;
    while (end < text.size() && strip(text.substr(end, code_point_size(text, end)), Side::kLeft).size() > 0)
      end += code_point_size(text, end);
    if (limit-- == 0) end = text.size();
    parts.push_back(Value::string(std::string(text.substr(0, end))));
    text.remove_prefix(end);
  }
  return parts;
}

Value split(std::string_view text, const Args& args, bool from_right) {
  const Value* separator = args.find(0, "sep");
  std::int64_t limit = args.integer(1, "maxsplit", -1);
  if (separator == nullptr || separator->is_none()) {
    if (from_right && limit >= 0) fail(ErrorKind::kFormat, "rsplit with a limit needs a separator");
    return Value::list(split_white(text, limit));
  }
  const std::string by = to_text(*separator);
  if (by.empty()) fail(ErrorKind::kFormat, "split with an empty separator");
  std::vector<Value> parts;
  while (limit-- != 0) {
    const std::size_t found = from_right ? text.rfind(by) : text.find(by);
    if (found == std::string_view::npos) break;
    const std::string_view tail = text.substr(found + by.size()), head = text.substr(0, found);
    parts.push_back(Value::string(std::string(from_right ? tail : head)));
    text = from_right ? head : tail;
  }
  parts.push_back(Value::string(std::string(text)));
  if (from_right) std::reverse(parts.begin(), parts.end());
  return Value::list(std::move(parts));
}

Value splitlines(std::string_view text) {
  std::vector<Value> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of("\r\n"), text.size());
    lines.push_back(Value::string(std::string(text.substr(0, end))));
    text.remove_prefix(end);
    if (!text.empty()) text.remove_prefix(text.substr(0, 2) == "\r\n" ? 2 : 1);
  }
  return Value::list(std::move(lines));
}

/// startswith and endswith: one text or a list of them.
bool has_affix(const std::string& text, const Value& affix, bool front) {
  if (affix.is_list())
    return std::any_of(affix.items().begin(), affix.items().end(),
                       [&](const Value& a) { return has_affix(text, a, front); });
  if (!affix.is_string())
    fail(ErrorKind::kFormat, "{} with a {}", front ? "startswith" : "endswith", affix.kind_name());
  const std::string& s = affix.as_string();
  return front ? text.starts_with(s) : text.ends_with(s);
}

bool all_characters(std::string_view text, bool (*holds)(char)) {
  return !text.empty() && std::all_of(text.begin(), text.end(), holds);
}

bool string_method(Budget& budget, const std::string& text, std::string_view name, const Args& args,
                   Value& result) {
  const auto stripped = [&](Side side) {
    const Value* chars = args.find(0, "chars");
    return Value::string(std::string(
        chars != nullptr && !chars->is_none() ? strip(text, to_text(*chars), side) : strip(text, side)));
  };
  const auto found = [&](std::size_t at) {
    return Value::integer(at == std::string::npos ? -1
                                                  : static_cast<std::int64_t>(
                                                        code_points(std::string_view(text).substr(0, at))));
  };
  if (name == "strip")
    result = stripped(Side::kBoth);
  else if (name == "lstrip")
    result = stripped(Side::kLeft);
  else if (name == "rstrip")
    result = stripped(Side::kRight);
  else if (name == "upper")
    result = Value::string(to_upper(text));
  else if (name == "lower")
    result = Value::string(to_lower(text));
  else if (name == "title")
    result = Value::string(to_title(text));
  else if (name == "capitalize")
    result = Value::string(capitalize(text));
  else if (name == "split")
    result = split(text, args, false);
  else if (name == "rsplit")
    result = split(text, args, true);
  else if (name == "splitlines")
    result = splitlines(text);
  else if (name == "startswith")
    result = Value::boolean(has_affix(text, args.get(0, "prefix"), true));
  else if (name == "endswith")
    result = Value::boolean(has_affix(text, args.get(0, "suffix"), false));
  else if (name == "removeprefix")
    result = Value::string(has_affix(text, args.get(0, "prefix"), true)
                               ? text.substr(to_text(args.get(0, "prefix")).size())
                               : text);
  else if (name == "removesuffix")
    result = Value::string(has_affix(text, args.get(0, "suffix"), false)
                               ? text.substr(0, text.size() - to_text(args.get(0, "suffix")).size())
                               : text);
  else if (name == "replace")
    result = Value::string(replace_all(budget, text, to_text(args.get(0, "old")),
                                       to_text(args.get(1, "new")), args.integer(2, "count", -1)));
  else if (name == "join")
    result = Value::string(join(budget, iterate(budget, args.get(0, "iterable")), text));
  else if (name == "find")
    result = found(text.find(to_text(args.get(0, "sub"))));
  else if (name == "rfind")
    result = found(text.rfind(to_text(args.get(0, "sub"))));
  else if (name == "isdigit")
    result = Value::boolean(all_characters(text, [](char c) { return c >= '0' && c <= '9'; }));
  else if (name == "isalpha")
    result = Value::boolean(all_characters(
        text, [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80); }));
  else if (name == "isspace")
    result = Value::boolean(!text.empty() && strip(text, Side::kBoth).empty());
  else if (name == "count") {
    const std::string what = to_text(args.get(0, "sub"));
    if (what.empty()) fail(ErrorKind::kFormat, "count of an empty text");
    std::int64_t n = 0;
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + what.size()))
      ++n;
    result = Value::integer(n);
  } else {
    return false;
  }
  return true;
}

bool dict_method(Budget& budget, const Value& dict, std::string_view name, const Args& args,
                 Value& result) {
  if (name == "items") {
    result = apply_filter(budget, "items", dict, {});
  } else if (name == "keys") {
    result = Value::list(iterate(budget, dict));
  } else if (name == "values") {
    std::vector<Value> values;
    for (const Entry& entry : dict.entries()) values.push_back(entry.second);
    result = Value::list(std::move(values));
  } else if (name == "get") {
    const Value& key = args.get(0, "key");
    const Value* fallback = args.find(1, "default");
    const Value* value = key.is_string() ? dict.find(key.as_string()) : nullptr;
    result = value != nullptr ? *value : fallback != nullptr ? *fallback : Value::none();
  } else if (name == "cycle" && dict.find("index0") != nullptr) {  // the `loop` variable
    if (args.positional.empty()) fail(ErrorKind::kFormat, "loop.cycle needs arguments");
    result = args.positional[static_cast<std::size_t>(dict.find("index0")->as_integer()) %
                             args.positional.size()];
  } else {
    return false;
  }
  return true;
}

bool list_method(Budget& budget, const Value& list, std::string_view name, const Args& args,
                 Value& result) {
  if (name != "index" && name != "count") return false;
  std::int64_t n = 0;
  for (std::size_t i = 0; i < list.items().size(); ++i) {
    if (!compare(budget, "==", list.items()[i], args.get(0, "value"))) continue;
    if (name == "index") return result = Value::integer(static_cast<std::int64_t>(i)), true;
    ++n;
  }
  if (name == "index") fail(ErrorKind::kFormat, "the value is not in the list");
  return result = Value::integer(n), true;
}

}  // namespace

Value call_method(Budget& budget, const Value& object, std::string_view name, const Args& args) {
  budget.charge(object);
  args.charge(budget);
  Value result;
  if (object.is_undefined()) fail(ErrorKind::kFormat, "'{}' is undefined", object.undefined_name());
  const bool known = object.is_string() ? string_method(budget, object.as_string(), name, args, result)
                     : object.is_dict() ? dict_method(budget, object, name, args, result)
                     : object.is_list() ? list_method(budget, object, name, args, result)
                                        : false;
  if (!known) fail(ErrorKind::kFormat, "a {} has no method \"{}\"", object.kind_name(), name);
  return result;
}

namespace {

Value range(Budget& budget, const Args& args) {
  const auto bound = [&](std::size_t i, std::int64_t fallback) {
    return args.integer(i, "bound", fallback);
  };
  const bool one = args.positional.size() < 2;
  const std::int64_t first = one ? 0 : bound(0, 0), last = one ? bound(0, 0) : bound(1, 0),
                     step = bound(2, 1);
  if (args.positional.empty() || step == 0)
    fail(ErrorKind::kFormat, "range() needs an end and a step other than 0");
  std::vector<Value> items;
  for (std::int64_t i = first; step > 0 ? i < last : i > last;) {
    budget.charge(1);
    if (items.size() >= 100'000) fail(ErrorKind::kResource, "a range of more than 100000 items");
    items.push_back(Value::integer(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::list(std::move(items));
}

Value strftime_now(const Args& args) {
  const std::string format = to_text(args.get(0, "format"));
  if (format.empty()) return Value::string("");
  if (format.size() > 200) fail(ErrorKind::kFormat, "strftime_now: the format is longer than 200 bytes");
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 4096> out;
  return Value::string(
      std::string(out.data(), std::strftime(out.data(), out.size(), format.c_str(), &local)));
}

}  // namespace

Value call_function(Budget& budget, std::string_view name, const Args& args) {
  args.charge(budget);
  if (name == "range") return range(budget, args);
  if (name == "strftime_now") return strftime_now(args);
  if (name == "raise_exception") throw Error(ErrorKind::kInput, to_text(args.get(0, "message")));
  std::vector<Entry> entries;
  if (!args.positional.empty() && args.positional[0].is_dict()) entries = args.positional[0].entries();
  for (const auto& [key, value] : args.named) entries.emplace_back(key, value);
  if (name == "dict") return Value::dict(std::move(entries));
  auto space = std::make_shared<Namespace>();
  for (Entry& entry : entries) space->set(entry.first, std::move(entry.second));
  return Value(Value::Data(std::move(space)));
}

const std::vector<std::string>& function_names() {
  static const std::vector<std::string> kNames = {"range", "namespace", "dict", "raise_exception",
                                                  "strftime_now"};
  return kNames;
}

}  // namespace llava::jinja
