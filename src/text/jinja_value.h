#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/json.h"

/// Values of the Jinja interpreter (internal to text/jinja*). Immutable but for namespaces, cheap to copy.
namespace llava::jinja {

struct List;
struct Dict;
struct Namespace;
struct Macro;
class Value;

using Text = std::shared_ptr<const std::string>;
using Entry = std::pair<std::string, Value>;

struct Undefined {
  std::string name;  ///< for messages
};
struct None {};
/// A function of the environment ("range", "namespace", …).
struct Builtin {
  std::string name;
};

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, std::int64_t, double, Text, std::shared_ptr<const List>,
                            std::shared_ptr<const Dict>, std::shared_ptr<Namespace>, const Macro*, Builtin>;
  Value() : data_(Undefined{}) {}
  explicit Value(Data data) : data_(std::move(data)) {}
  static Value undefined(std::string_view name) { return Value(Data(Undefined{std::string(name)})); }
  static Value none() { return Value(Data(None{})); }
  static Value boolean(bool b) { return Value(Data(b)); }
  static Value integer(std::int64_t i) { return Value(Data(i)); }
  static Value real(double d) { return Value(Data(d)); }
  static Value string(std::string s) {
    return Value(Data(Text(std::make_shared<const std::string>(std::move(s)))));
  }
  /// Error{kResource} if the nesting would pass the limit; Error{kUnsupported} for a namespace inside.
  static Value list(std::vector<Value> items);
  static Value dict(std::vector<Entry> entries);
  static Value from_json(const OrderedJson& json);

  bool is_undefined() const { return holds<Undefined>(); }
  bool is_none() const { return holds<None>(); }
  bool is_bool() const { return holds<bool>(); }
  bool is_integer() const { return holds<std::int64_t>(); }
  bool is_real() const { return holds<double>(); }
  bool is_number() const { return is_integer() || is_real() || is_bool(); }
  bool is_string() const { return holds<Text>(); }
  bool is_list() const { return holds<std::shared_ptr<const List>>(); }
  bool is_dict() const { return holds<std::shared_ptr<const Dict>>(); }
  bool is_namespace() const { return holds<std::shared_ptr<Namespace>>(); }
  bool is_macro() const { return holds<const Macro*>(); }
  bool is_builtin() const { return holds<Builtin>(); }

  bool as_bool() const { return std::get<bool>(data_); }
  std::int64_t as_integer() const { return is_bool() ? as_bool() : std::get<std::int64_t>(data_); }
  double as_real() const { return is_real() ? std::get<double>(data_) : static_cast<double>(as_integer()); }
  const std::string& as_string() const { return *std::get<Text>(data_); }
  const std::vector<Value>& items() const;
  const std::vector<Entry>& entries() const;
  Namespace& as_namespace() const { return *std::get<std::shared_ptr<Namespace>>(data_); }
  const Macro& as_macro() const { return *std::get<const Macro*>(data_); }
  const std::string& as_builtin() const { return std::get<Builtin>(data_).name; }
  const std::string& undefined_name() const { return std::get<Undefined>(data_).name; }

  bool truthy() const;
  /// Work of visiting all of it: nodes and 64-byte units of text; saturates.
  std::size_t weight() const;
  std::size_t depth() const;
  /// Dict or namespace entry; nullptr if absent or another kind.
  const Value* find(std::string_view key) const;
  /// "string", "list", … for messages.
  const char* kind_name() const;

 private:
  template <class T>
  bool holds() const {
    return std::holds_alternative<T>(data_);
  }
  Data data_;
};

struct List {
  std::vector<Value> items;
  std::size_t weight = 1, depth = 1;
};
struct Dict {
  std::vector<Entry> entries;
  std::size_t weight = 1, depth = 1;
};
/// namespace(): the one thing a template can change in place; never inside a container, so no cycles.
struct Namespace {
  std::vector<Entry> entries;
  void set(std::string_view name, Value value);
};

/// As Python's str(): what {{ value }} writes.
std::string to_text(const Value& value);
/// As json.dumps(value, ensure_ascii=False, indent=indent); indent < 0: one line. Error{kFormat} for
/// undefined values.
std::string to_json(const Value& value, int indent);
/// Python's ==.
bool equal(const Value& a, const Value& b);
/// Python's <; Error{kFormat} where the kinds have no order.
bool less(const Value& a, const Value& b);

/// Code points of UTF-8 text; each invalid byte counts as one.
std::size_t code_points(std::string_view text);
/// Bytes of the code point at `at`.
std::size_t code_point_size(std::string_view text, std::size_t at);
/// Python's str.strip(): Unicode white space at both ends.
enum class Side { kBoth, kLeft, kRight };
std::string_view strip(std::string_view text, Side side);
/// str.strip(chars).
std::string_view strip(std::string_view text, std::string_view chars, Side side);

}  // namespace llava::jinja
