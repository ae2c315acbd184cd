#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <unordered_map>

#include "text/jinja_runtime.h"

namespace llava::jinja {

std::int64_t Args::integer(std::size_t index, std::string_view name, std::int64_t fallback) const {
  const Value* value = find(index, name);
  if (value == nullptr || value->is_none()) return fallback;
  if (!value->is_integer())
    fail(ErrorKind::kFormat, "\"{}\" must be an integer, not {}", name, value->kind_name());
  return value->as_integer();
}

std::string Args::text(std::size_t index, std::string_view name, std::string_view fallback) const {
  const Value* value = find(index, name);
  return value == nullptr ? std::string(fallback) : to_text(*value);
}

namespace {

using Filter = Value (*)(Budget&, const Value&, const Args&);

/// The value of a dotted attribute path, as selectattr, map and sort take it.
Value attribute(Budget& budget, Value object, std::string_view path) {
  while (true) {
    const std::size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    const bool is_index =
        !part.empty() && part.size() < 10 &&
        std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    object = get_item(
        budget, object,
        is_index ? Value::integer(std::stoll(std::string(part))) : Value::string(std::string(part)));
    if (dot == std::string_view::npos) return object;
    path.remove_prefix(dot + 1);
  }
}

std::size_t length(Budget& budget, const Value& v) {
  if (v.is_string()) return budget.charge(v), code_points(v.as_string());
  if (v.is_list()) return v.items().size();
  if (v.is_dict()) return v.entries().size();
  if (v.is_undefined()) return 0;
  fail(ErrorKind::kFormat, "a {} has no length", v.kind_name());
}

/// select, reject, selectattr, rejectattr.
template <bool kByAttribute, bool kWanted>
Value select(Budget& budget, const Value& v, const Args& args) {
  const std::size_t shift = kByAttribute ? 1 : 0;
  const std::string path = kByAttribute ? args.get(0, "attribute").is_string()
                                              ? args.positional.at(0).as_string()
                                              : to_text(args.get(0, "attribute"))
                                        : "";
  const std::string test = args.text(shift, "test", "");
  const Args rest = args.from(shift + 1);
  std::vector<Value> kept;
  for (const Value& item : iterate(budget, v)) {
    const Value subject = kByAttribute ? attribute(budget, item, path) : item;
    if ((test.empty() ? subject.truthy() : apply_test(budget, test, subject, rest)) == kWanted)
      kept.push_back(item);
  }
  return Value::list(std::move(kept));
}

Value map(Budget& budget, const Value& v, const Args& args) {
  std::vector<Value> out;
  const Value* path = args.positional.empty() ? args.find(0, "attribute") : nullptr;
  const Value* fallback = args.find(std::size_t(-1), "default");
  for (const Value& item : iterate(budget, v)) {
    if (path != nullptr) {
      Value found = attribute(budget, item, to_text(*path));
      out.push_back(found.is_undefined() && fallback != nullptr ? *fallback : std::move(found));
    } else {
      out.push_back(apply_filter(budget, args.text(0, "filter", ""), item, args.from(1)));
    }
  }
  return Value::list(std::move(out));
}

Value sort(Budget& budget, const Value& v, const Args& args) {
  std::vector<Value> items = iterate(budget, v);
  const Value* path = args.find(2, "attribute");
  const Value* reverse = args.find(0, "reverse");
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) {
    Value key = path != nullptr ? attribute(budget, item, to_text(*path)) : item;
    const Value* case_sensitive = args.find(1, "case_sensitive");
    if (key.is_string() && !(case_sensitive != nullptr && case_sensitive->truthy()))
      key = Value::string(to_lower(key.as_string()));
    keyed.emplace_back(std::move(key), std::move(item));
  }
  const bool down = reverse != nullptr && reverse->truthy();
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    budget.charge(std::min(a.first.weight(), b.first.weight()));
    return down ? less(b.first, a.first) : less(a.first, b.first);
  });
  items.clear();
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return Value::list(std::move(items));
}

template <bool kMaximum>
Value extreme(Budget& budget, const Value& v, const Args&) {
  const std::vector<Value> items = iterate(budget, v);
  if (items.empty()) return Value::undefined("an extreme of nothing");
  const auto by_less = [&](const Value& a, const Value& b) { return budget.charge(a), less(a, b); };
  return kMaximum ? *std::max_element(items.begin(), items.end(), by_less)
                  : *std::min_element(items.begin(), items.end(), by_less);
}

Value unique(Budget& budget, const Value& v, const Args&) {
  std::vector<Value> kept;
  for (const Value& item : iterate(budget, v))
    if (std::none_of(kept.begin(), kept.end(),
                     [&](const Value& seen) { return compare(budget, "==", seen, item); }))
      kept.push_back(item);
  return Value::list(std::move(kept));
}

Value sum(Budget& budget, const Value& v, const Args& args) {
  const Value* path = args.find(0, "attribute");
  Value total = Value::integer(args.integer(1, "start", 0));
  for (const Value& item : iterate(budget, v))
    total = binary(budget, "+", total, path != nullptr ? attribute(budget, item, to_text(*path)) : item);
  return total;
}

Value items_of(Budget& budget, const Value& v, const Args&) {
  if (v.is_undefined()) return Value::list({});
  if (!v.is_dict()) fail(ErrorKind::kFormat, "items of a {}", v.kind_name());
  budget.charge(v);
  std::vector<Value> pairs;
  for (const auto& [key, value] : v.entries()) pairs.push_back(Value::list({Value::string(key), value}));
  return Value::list(std::move(pairs));
}

Value dictsort(Budget& budget, const Value& v, const Args& args) {
  std::vector<Value> pairs = items_of(budget, v, args).items();
  std::stable_sort(pairs.begin(), pairs.end(), [&](const Value& a, const Value& b) {
    budget.charge(1);
    return to_lower(a.items()[0].as_string()) < to_lower(b.items()[0].as_string());
  });
  return Value::list(std::move(pairs));
}

Value indent(Budget& budget, const Value& v, const Args& args) {
  const Value* width = args.find(0, "width");
  const std::string pad =
      width != nullptr && width->is_string()
          ? width->as_string()
          : std::string(
                static_cast<std::size_t>(std::clamp<std::int64_t>(args.integer(0, "width", 4), 0, 100)),
                ' ');
  const auto flag = [&](std::size_t i, const char* name) {
    return args.find(i, name) != nullptr && args.find(i, name)->truthy();
  };
  const std::string text = to_text(v);
  budget.charge(text.size());
  std::string out;
  std::size_t begin = 0;
  for (bool first = true; begin <= text.size(); first = false) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const bool blank = end == begin;
    if (first ? flag(1, "first") : !blank || flag(2, "blank")) {
      budget.charge(1 + pad.size() / 64);
      out += pad;
    }
    out.append(text, begin, end - begin);
    if (end < text.size()) out += '\n';
    begin = end + 1;
  }
  return Value::string(std::move(out));
}

Value to_integer(Budget&, const Value& v, const Args& args) {
  const std::int64_t fallback = args.integer(0, "default", 0);
  if (v.is_integer() || v.is_bool()) return Value::integer(v.as_integer());
  const double d = v.is_real()     ? v.as_real()
                   : v.is_string() ? std::strtod(v.as_string().c_str(), nullptr)
                                   : std::nan("");
  if (v.is_string() && v.as_string().find_first_of("0123456789") == std::string::npos)
    return Value::integer(fallback);
  return Value::integer(std::abs(d) < 9e18 ? static_cast<std::int64_t>(d) : fallback);
}

Value to_float(Budget&, const Value& v, const Args& args) {
  if (v.is_number()) return Value::real(v.as_real());
  if (v.is_string() && v.as_string().find_first_of("0123456789") != std::string::npos)
    return Value::real(std::strtod(v.as_string().c_str(), nullptr));
  const Value* fallback = args.find(0, "default");
  return Value::real(fallback != nullptr && fallback->is_number() ? fallback->as_real() : 0.0);
}

Value round_to(Budget&, const Value& v, const Args& args) {
  if (!v.is_number()) fail(ErrorKind::kFormat, "round of a {}", v.kind_name());
  const double scale = std::pow(
      10.0, static_cast<double>(std::clamp<std::int64_t>(args.integer(0, "precision", 0), -15, 15)));
  const std::string method = args.text(1, "method", "common");
  const double x = v.as_real() * scale;
  return Value::real((method == "ceil"    ? std::ceil(x)
                      : method == "floor" ? std::floor(x)
                                          : std::nearbyint(x)) /
                     scale);
}

Value edge(Budget& budget, const Value& v, bool front) {
  const std::vector<Value> items = iterate(budget, v);
  if (items.empty()) return Value::undefined("an item of nothing");
  return front ? items.front() : items.back();
}

Value default_value(Budget&, const Value& v, const Args& args) {
  const Value* boolean = args.find(1, "boolean");
  const Value* fallback = args.find(0, "default_value");
  const bool missing = v.is_undefined() || (boolean != nullptr && boolean->truthy() && !v.truthy());
  return !missing ? v : fallback != nullptr ? *fallback : Value::string("");
}

Value reverse(Budget& budget, const Value& v, const Args&) {
  std::vector<Value> items = iterate(budget, v);
  std::reverse(items.begin(), items.end());
  return v.is_string() ? Value::string(join(budget, items, "")) : Value::list(std::move(items));
}

Value escape(Budget& budget, const Value& v, const Args&) {
  std::string out;
  for (const char c : to_text(v)) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&#34;";
    else if (c == '\'')
      out += "&#39;";
    else
      out += c;
  }
  budget.charge(out.size() / 64);
  return Value::string(std::move(out));
}

Value trim(Budget&, const Value& v, const Args& args) {
  const std::string text = to_text(v);
  const Value* chars = args.find(0, "chars");
  return Value::string(std::string(chars != nullptr && !chars->is_none()
                                       ? strip(text, to_text(*chars), Side::kBoth)
                                       : strip(text, Side::kBoth)));
}

const std::unordered_map<std::string_view, Filter>& filters() {
  static const std::unordered_map<std::string_view, Filter> kFilters = {
      {"trim", trim},
      {"length", [](Budget& b, const Value& v,
                    const Args&) { return Value::integer(static_cast<std::int64_t>(length(b, v))); }},
      {"count", [](Budget& b, const Value& v,
                   const Args&) { return Value::integer(static_cast<std::int64_t>(length(b, v))); }},
      {"upper", [](Budget&, const Value& v, const Args&) { return Value::string(to_upper(to_text(v))); }},
      {"lower", [](Budget&, const Value& v, const Args&) { return Value::string(to_lower(to_text(v))); }},
      {"title", [](Budget&, const Value& v, const Args&) { return Value::string(to_title(to_text(v))); }},
      {"capitalize",
       [](Budget&, const Value& v, const Args&) { return Value::string(capitalize(to_text(v))); }},
      {"string", [](Budget&, const Value& v, const Args&) { return Value::string(to_text(v)); }},
      {"safe", [](Budget&, const Value& v, const Args&) { return v; }},
      {"escape", escape},
      {"e", escape},
      {"default", default_value},
      {"d", default_value},
      {"first", [](Budget& b, const Value& v, const Args&) { return edge(b, v, true); }},
      {"last", [](Budget& b, const Value& v, const Args&) { return edge(b, v, false); }},
      {"list", [](Budget& b, const Value& v, const Args&) { return Value::list(iterate(b, v)); }},
      {"reverse", reverse},
      {"sort", sort},
      {"unique", unique},
      {"min", extreme<false>},
      {"max", extreme<true>},
      {"sum", sum},
      {"items", items_of},
      {"dictsort", dictsort},
      {"map", map},
      {"select", select<false, true>},
      {"reject", select<false, false>},
      {"selectattr", select<true, true>},
      {"rejectattr", select<true, false>},
      {"join",
       [](Budget& b, const Value& v, const Args& a) {
         const Value* path = a.find(1, "attribute");
         const std::vector<Value> items =
             path != nullptr ? map(b, v, Args{{}, {{"attribute", *path}}}).items() : iterate(b, v);
         return Value::string(join(b, items, a.text(0, "d", "")));
       }},
      {"replace",
       [](Budget& b, const Value& v, const Args& a) {
         return Value::string(replace_all(b, to_text(v), to_text(a.get(0, "old")), to_text(a.get(1, "new")),
                                          a.integer(2, "count", -1)));
       }},
      {"tojson",
       [](Budget& b, const Value& v, const Args& a) {
         const std::int64_t width = std::clamp<std::int64_t>(a.integer(0, "indent", -1), -1, 16);
         b.charge(v.weight() * (width > 0 ? v.depth() : 1));
         return Value::string(to_json(v, static_cast<int>(width)));
       }},
      {"indent", indent},
      {"int", to_integer},
      {"float", to_float},
      {"round", round_to},
      {"abs",
       [](Budget& b, const Value& v, const Args&) {
         if (!v.is_number()) fail(ErrorKind::kFormat, "abs of a {}", v.kind_name());
         return v.as_real() < 0 ? binary(b, "*", v, Value::integer(-1)) : v;
       }},
  };
  return kFilters;
}

}  // namespace

Value apply_filter(Budget& budget, std::string_view name, const Value& operand, const Args& args) {
  const auto it = filters().find(name);
  if (it == filters().end()) fail(ErrorKind::kFormat, "unknown filter \"{}\"", name);
  budget.charge(operand);
  args.charge(budget);
  return it->second(budget, operand, args);
}

}  // namespace llava::jinja
