#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/jinja.h"
#include "text/jinja_value.h"

/// What filters, tests, methods and functions of the Jinja interpreter share (internal to text/jinja*).
namespace llava::jinja {

/// The budget of one render(). Everything that visits or copies a value pays its weight first.
class Budget {
 public:
  explicit Budget(std::size_t steps) : left_(steps) {}
  void charge(std::size_t n) {
    if (n > left_) fail(ErrorKind::kResource, "the template runs for too many steps");
    left_ -= n;
  }
  void charge(const Value& value) { charge(value.weight()); }

 private:
  std::size_t left_;
};

/// Evaluated arguments of a call.
struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  /// The argument at `index` or of that name; nullptr if neither was given.
  const Value* find(std::size_t index, std::string_view name) const {
    if (index < positional.size()) return &positional[index];
    for (const auto& [key, value] : named)
      if (key == name) return &value;
    return nullptr;
  }
  const Value& get(std::size_t index, std::string_view name) const {
    if (const Value* value = find(index, name)) return *value;
    fail(ErrorKind::kFormat, "the argument \"{}\" is missing", name);
  }
  std::int64_t integer(std::size_t index, std::string_view name, std::int64_t fallback) const;
  std::string text(std::size_t index, std::string_view name, std::string_view fallback) const;
  void charge(Budget& budget) const {
    for (const Value& value : positional) budget.charge(value);
    for (const auto& [key, value] : named) budget.charge(value);
  }
  Args from(std::size_t first) const {
    return {{positional.begin() + static_cast<std::ptrdiff_t>(std::min(first, positional.size())),
             positional.end()},
            named};
  }
};

/// operand | name(args). Error{kFormat} for unknown names and wrong arguments, as in all functions below.
Value apply_filter(Budget& budget, std::string_view name, const Value& operand, const Args& args);
/// operand is name(args).
bool apply_test(Budget& budget, std::string_view name, const Value& operand, const Args& args);
bool is_test(std::string_view name);
/// object.name(args) of strings, dicts, lists and the `loop` variable.
Value call_method(Budget& budget, const Value& object, std::string_view name, const Args& args);
/// range(), namespace(), dict(), raise_exception(), strftime_now().
Value call_function(Budget& budget, std::string_view name, const Args& args);
const std::vector<std::string>& function_names();

Value binary(Budget& budget, std::string_view op, const Value& left, const Value& right);
bool compare(Budget& budget, std::string_view op, const Value& left, const Value& right);
/// object[key] and object.key; undefined where there is none.
Value get_item(Budget& budget, const Value& object, const Value& key);
Value get_slice(Budget& budget, const Value& object, const Value& begin, const Value& end,
                const Value& step);
/// What a loop over the value visits: list items, dict keys, characters; nothing for undefined values.
std::vector<Value> iterate(Budget& budget, const Value& value);

/// Case mapping of ASCII, Latin-1, Greek and Cyrillic letters; others stay.
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string to_title(std::string_view text);
std::string capitalize(std::string_view text);
std::string replace_all(Budget& budget, std::string_view text, std::string_view from, std::string_view to,
                        std::int64_t count);
std::string join(Budget& budget, const std::vector<Value>& items, std::string_view separator);

}  // namespace llava::jinja
