#include <unordered_map>

#include "text/jinja_runtime.h"

namespace llava::jinja {

namespace {

using Test = bool (*)(Budget&, const Value&, const Args&);

template <char kOp, bool kOrEqual = false>
bool compares(Budget& budget, const Value& v, const Args& args) {
  static constexpr char kText[] = {kOp, '=', '\0'};
  return compare(budget, std::string_view(kText, kOrEqual || kOp == '=' || kOp == '!' ? 2 : 1), v,
                 args.get(0, "other"));
}

std::int64_t as_integer(const Value& v) {
  if (!v.is_integer() && !v.is_bool())
    fail(ErrorKind::kFormat, "expected an integer, not {}", v.kind_name());
  return v.as_integer();
}

const std::unordered_map<std::string_view, Test>& tests() {
  static const std::unordered_map<std::string_view, Test> kTests = {
      {"defined", [](Budget&, const Value& v, const Args&) { return !v.is_undefined(); }},
      {"undefined", [](Budget&, const Value& v, const Args&) { return v.is_undefined(); }},
      {"none", [](Budget&, const Value& v, const Args&) { return v.is_none(); }},
      {"string", [](Budget&, const Value& v, const Args&) { return v.is_string(); }},
      {"mapping", [](Budget&, const Value& v, const Args&) { return v.is_dict(); }},
      {"sequence",
       [](Budget&, const Value& v, const Args&) { return v.is_string() || v.is_list() || v.is_dict(); }},
      {"iterable",
       [](Budget&, const Value& v, const Args&) {
         return v.is_string() || v.is_list() || v.is_dict() || v.is_undefined();
       }},
      {"number", [](Budget&, const Value& v, const Args&) { return v.is_number(); }},
      {"integer", [](Budget&, const Value& v, const Args&) { return v.is_integer(); }},
      {"float", [](Budget&, const Value& v, const Args&) { return v.is_real(); }},
      {"boolean", [](Budget&, const Value& v, const Args&) { return v.is_bool(); }},
      {"true", [](Budget&, const Value& v, const Args&) { return v.is_bool() && v.as_bool(); }},
      {"false", [](Budget&, const Value& v, const Args&) { return v.is_bool() && !v.as_bool(); }},
      {"callable", [](Budget&, const Value& v, const Args&) { return v.is_macro() || v.is_builtin(); }},
      {"odd", [](Budget&, const Value& v, const Args&) { return as_integer(v) % 2 != 0; }},
      {"even", [](Budget&, const Value& v, const Args&) { return as_integer(v) % 2 == 0; }},
      {"divisibleby", [](Budget& b, const Value& v,
                         const Args& a) { return as_integer(binary(b, "%", v, a.get(0, "num"))) == 0; }},
      {"lower", [](Budget&, const Value& v, const Args&) { return to_text(v) == to_lower(to_text(v)); }},
      {"upper", [](Budget&, const Value& v, const Args&) { return to_text(v) == to_upper(to_text(v)); }},
      {"in", [](Budget& b, const Value& v, const Args& a) { return compare(b, "in", v, a.get(0, "seq")); }},
      {"eq", compares<'='>},
      {"equalto", compares<'='>},
      {"==", compares<'='>},
      {"sameas", compares<'='>},
      {"ne", compares<'!'>},
      {"!=", compares<'!'>},
      {"lt", compares<'<'>},
      {"lessthan", compares<'<'>},
      {"<", compares<'<'>},
      {"gt", compares<'>'>},
      {"greaterthan", compares<'>'>},
      {">", compares<'>'>},
      {"le", compares<'<', true>},
      {"<=", compares<'<', true>},
      {"ge", compares<'>', true>},
      {">=", compares<'>', true>},
  };
  return kTests;
}

}  // namespace

bool is_test(std::string_view name) { return tests().contains(name); }

bool apply_test(Budget& budget, std::string_view name, const Value& operand, const Args& args) {
  const auto it = tests().find(name);
  if (it == tests().end()) fail(ErrorKind::kFormat, "unknown test \"{}\"", name);
  budget.charge(operand);
  args.charge(budget);
  return it->second(budget, operand, args);
}

}  // namespace llava::jinja
