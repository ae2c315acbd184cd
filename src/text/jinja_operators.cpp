#include <algorithm>
#include <cmath>

#include "text/jinja_runtime.h"

namespace llava::jinja {

namespace {

[[noreturn]] void bad_operands(std::string_view op, const Value& a, const Value& b) {
  if (a.is_undefined()) fail(ErrorKind::kFormat, "'{}' is undefined", a.undefined_name());
  if (b.is_undefined()) fail(ErrorKind::kFormat, "'{}' is undefined", b.undefined_name());
  fail(ErrorKind::kFormat, "'{}' between {} and {}", op, a.kind_name(), b.kind_name());
}

void check_range(bool overflow) {
  if (overflow) fail(ErrorKind::kFormat, "an integer is out of range");
}

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  const std::int64_t quotient = a / b;
  return quotient - ((a % b != 0) && ((a < 0) != (b < 0)) ? 1 : 0);
}

Value integer_power(std::int64_t a, std::int64_t b) {
  if (b < 0) return Value::real(std::pow(static_cast<double>(a), static_cast<double>(b)));
  if (a == 0 || a == 1) return Value::integer(b == 0 ? 1 : a);
  if (a == -1) return Value::integer(b % 2 == 0 ? 1 : -1);
  std::int64_t result = 1;
  for (std::int64_t i = 0; i < b; ++i) check_range(__builtin_mul_overflow(result, a, &result));
  return Value::integer(result);
}

Value integer_op(std::string_view op, std::int64_t a, std::int64_t b) {
  if (op == "**") return integer_power(a, b);
  std::int64_t result = 0;
  if (op == "+") {
    check_range(__builtin_add_overflow(a, b, &result));
  } else if (op == "-") {
    check_range(__builtin_sub_overflow(a, b, &result));
  } else if (op == "*") {
    check_range(__builtin_mul_overflow(a, b, &result));
  } else {
    if (b == 0) fail(ErrorKind::kFormat, "division by zero");
    if (op == "/") return Value::real(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1) {  // the one division that can overflow
      check_range(op == "//" && __builtin_sub_overflow(std::int64_t{0}, a, &result));
    } else {
      const std::int64_t quotient = floor_div(a, b);
      result = op == "//" ? quotient : a - quotient * b;
    }
  }
  return Value::integer(result);
}

Value real_op(std::string_view op, double a, double b) {
  if (op == "+") return Value::real(a + b);
  if (op == "-") return Value::real(a - b);
  if (op == "*") return Value::real(a * b);
  if (op == "**") return Value::real(std::pow(a, b));
  if (b == 0) fail(ErrorKind::kFormat, "division by zero");
  if (op == "/") return Value::real(a / b);
  return Value::real(op == "//" ? std::floor(a / b) : a - std::floor(a / b) * b);
}

Value repeat(Budget& budget, const Value& value, std::int64_t times) {
  const auto n = static_cast<std::size_t>(std::clamp<std::int64_t>(times, 0, std::int64_t{1} << 32));
  budget.charge(value.weight() * n);
  if (value.is_string()) {
    std::string out;
    for (std::size_t i = 0; i < n; ++i) out += value.as_string();
    return Value::string(std::move(out));
  }
  std::vector<Value> items;
  for (std::size_t i = 0; i < n; ++i) items.insert(items.end(), value.items().begin(), value.items().end());
  return Value::list(std::move(items));
}

}  // namespace

Value binary(Budget& budget, std::string_view op, const Value& left, const Value& right) {
  budget.charge(left);
  budget.charge(right);
  if (op == "~") return Value::string(to_text(left) + to_text(right));
  if (left.is_number() && right.is_number())
    return left.is_real() || right.is_real() ? real_op(op, left.as_real(), right.as_real())
                                             : integer_op(op, left.as_integer(), right.as_integer());
  if (op == "+" && left.is_string() && right.is_string())
    return Value::string(left.as_string() + right.as_string());
  if (op == "+" && left.is_list() && right.is_list()) {
    std::vector<Value> items = left.items();
    items.insert(items.end(), right.items().begin(), right.items().end());
    return Value::list(std::move(items));
  }
  if (op == "*") {
    if ((left.is_string() || left.is_list()) && (right.is_integer() || right.is_bool()))
      return repeat(budget, left, right.as_integer());
    if ((right.is_string() || right.is_list()) && (left.is_integer() || left.is_bool()))
      return repeat(budget, right, left.as_integer());
  }
  bad_operands(op, left, right);
}

namespace {

bool contains(const Value& container, const Value& item) {
  if (container.is_string() && item.is_string())
    return container.as_string().find(item.as_string()) != std::string::npos;
  if (container.is_list())
    return std::any_of(container.items().begin(), container.items().end(),
                       [&](const Value& v) { return equal(v, item); });
  if (container.is_dict() && item.is_string()) return container.find(item.as_string()) != nullptr;
  if (container.is_dict() || container.is_undefined()) return false;
  bad_operands("in", item, container);
}

}  // namespace

bool compare(Budget& budget, std::string_view op, const Value& left, const Value& right) {
  const std::size_t a = left.weight(), b = right.weight();
  budget.charge(a + b);
  // Dict look-ups are linear and a substring search may be quadratic, both with a small constant.
  if (left.is_dict() || left.is_list() || op == "in" || op == "not in")
    budget.charge(std::min(a, b) * (std::max(a, b) / 64));
  if (op == "==") return equal(left, right);
  if (op == "!=") return !equal(left, right);
  if (op == "in") return contains(right, left);
  if (op == "not in") return !contains(right, left);
  if (left.is_undefined() || right.is_undefined()) bad_operands(op, left, right);
  if (op == "<") return less(left, right);
  if (op == ">") return less(right, left);
  return op == "<=" ? !less(right, left) : !less(left, right);
}

namespace {

/// Byte of the code point at `index`.
std::size_t byte_of(std::string_view text, std::size_t index) {
  std::size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += code_point_size(text, at);
  return at;
}

std::string attribute_name(const Value& key) { return key.is_string() ? key.as_string() : to_text(key); }

}  // namespace

Value get_item(Budget& budget, const Value& object, const Value& key) {
  budget.charge(1);
  if (object.is_undefined()) fail(ErrorKind::kFormat, "'{}' is undefined", object.undefined_name());
  if (object.is_dict() || object.is_namespace()) {
    budget.charge(object.entries().size() / 16);
    const Value* value = key.is_string() ? object.find(key.as_string()) : nullptr;
    return value != nullptr ? *value : Value::undefined(attribute_name(key));
  }
  if (!key.is_integer() || !(object.is_list() || object.is_string()))
    return Value::undefined(attribute_name(key));
  if (object.is_string()) budget.charge(object);
  const auto n =
      static_cast<std::int64_t>(object.is_list() ? object.items().size() : code_points(object.as_string()));
  const std::int64_t index = key.as_integer() < 0 ? key.as_integer() + n : key.as_integer();
  if (index < 0 || index >= n) return Value::undefined(attribute_name(key));
  if (object.is_list()) return object.items()[static_cast<std::size_t>(index)];
  const std::size_t at = byte_of(object.as_string(), static_cast<std::size_t>(index));
  return Value::string(object.as_string().substr(at, code_point_size(object.as_string(), at)));
}

Value get_slice(Budget& budget, const Value& object, const Value& begin, const Value& end,
                const Value& step) {
  if (!object.is_list() && !object.is_string()) {
    if (object.is_undefined()) fail(ErrorKind::kFormat, "'{}' is undefined", object.undefined_name());
    fail(ErrorKind::kFormat, "a slice of a {}", object.kind_name());
  }
  budget.charge(object);
  const std::vector<Value> characters = object.is_string() ? iterate(budget, object) : std::vector<Value>{};
  const std::vector<Value>& items = object.is_string() ? characters : object.items();
  const auto n = static_cast<std::int64_t>(items.size());
  const auto part = [](const Value& v, std::int64_t fallback) {
    if (v.is_undefined() || v.is_none()) return fallback;
    if (!v.is_integer()) fail(ErrorKind::kFormat, "a slice with a {}", v.kind_name());
    return v.as_integer();
  };
  const std::int64_t stride = part(step, 1);
  if (stride == 0) fail(ErrorKind::kFormat, "a slice with step 0");
  const std::int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? n : n - 1;
  const auto bound = [&](const Value& v, std::int64_t fallback) {
    std::int64_t at = part(v, fallback);
    if (v.is_integer() && at < 0) at = at < -n ? low : at + n;
    return std::clamp(at, low, high);
  };
  const std::int64_t first = bound(begin, stride > 0 ? 0 : n - 1), last = bound(end, stride > 0 ? n : -1);
  std::vector<Value> picked;
  for (std::int64_t i = first; stride > 0 ? i < last : i > last;) {
    picked.push_back(items[static_cast<std::size_t>(i)]);
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  budget.charge(picked.size());
  return object.is_list() ? Value::list(std::move(picked)) : Value::string(join(budget, picked, ""));
}

std::vector<Value> iterate(Budget& budget, const Value& value) {
  budget.charge(1);
  if (value.is_undefined()) return {};
  std::vector<Value> items;
  if (value.is_list()) {
    budget.charge(value.items().size());
    return value.items();
  }
  if (value.is_dict()) {
    budget.charge(value);
    for (const Entry& entry : value.entries()) items.push_back(Value::string(entry.first));
  } else if (value.is_string()) {
    const std::string& text = value.as_string();
    budget.charge(text.size());
    for (std::size_t at = 0; at < text.size(); at += code_point_size(text, at))
      items.push_back(Value::string(text.substr(at, code_point_size(text, at))));
  } else {
    fail(ErrorKind::kFormat, "a {} cannot be iterated", value.kind_name());
  }
  return items;
}

}  // namespace llava::jinja
