#include "text/jinja_interpreter.h"

#include <algorithm>

#include "text/jinja_runtime.h"

namespace llava::jinja {

namespace {

struct Scope {
  const Scope* parent = nullptr;
  std::vector<std::pair<std::string_view, Value>> names;

  const Value* find(std::string_view name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent)
      for (auto it = scope->names.rbegin(); it != scope->names.rend(); ++it)
        if (it->first == name) return &it->second;
    return nullptr;
  }
  void set(std::string_view name, Value value) {
    for (auto& [key, old] : names)
      if (key == name) {
        old = std::move(value);
        return;
      }
    names.emplace_back(name, std::move(value));
  }
};

enum class Flow { kNormal, kBreak, kContinue };

/// Walks the tree once, writing to `output`.
class Interpreter {
 public:
  Interpreter(const JinjaLimits& limits, std::size_t steps) : limits_(limits), budget_(steps) {}

  JinjaOutput run(const Block& program, const OrderedJson& variables) {
    for (const std::string& name : function_names()) globals_.set(name, Value(Value::Data(Builtin{name})));
    for (const auto& [name, value] : variables.items()) globals_.set(name, Value::from_json(value));
    Scope top{&globals_, {}};
    top_ = &top;
    try {
      exec(program, top);
    } catch (const Error& e) {
      throw Error(e.kind(), fmt::format("chat template, line {}: {}", line_, e.what()), e.hint());
    }
    return std::move(output_);
  }

 private:
  struct Nested {
    explicit Nested(Interpreter& i) : owner(i) {
      if (++owner.depth_ > owner.limits_.depth)
        fail(ErrorKind::kResource, "nested deeper than {}", owner.limits_.depth);
    }
    ~Nested() { --owner.depth_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;
    Interpreter& owner;
  };

  void write(const std::string& text) {
    budget_.charge(1 + text.size() / 64);
    std::string& out = capture_ != nullptr ? *capture_ : output_.text;
    if (text.size() > limits_.output_bytes - std::min(limits_.output_bytes, out.size()))
      fail(ErrorKind::kResource, "the output is longer than {} bytes", limits_.output_bytes);
    out += text;
  }

  /// Runs `block` with its output going to a string of its own.
  std::string captured(const Block& block, Scope& scope) {
    std::string text;
    std::string* const outer = std::exchange(capture_, &text);
    exec(block, scope);
    capture_ = outer;
    return text;
  }

  Flow exec(const Block& block, Scope& scope) {
    const Nested nested(*this);
    for (const Stmt& stmt : block) {
      budget_.charge(1);
      line_ = stmt.line;
      const Flow flow = exec(stmt, scope);
      if (flow != Flow::kNormal) return flow;
    }
    return Flow::kNormal;
  }

  Flow exec(const Stmt& stmt, Scope& scope) {
    switch (stmt.kind) {
      case Stmt::Kind::kText:
        return write(stmt.text), Flow::kNormal;
      case Stmt::Kind::kOutput:
        return exec_output(stmt, scope), Flow::kNormal;
      case Stmt::Kind::kIf:
        return exec_if(stmt, scope);
      case Stmt::Kind::kFor:
        return exec_for(stmt, scope), Flow::kNormal;
      case Stmt::Kind::kSet:
        return assign(stmt, eval(*stmt.expr, scope), scope), Flow::kNormal;
      case Stmt::Kind::kSetBlock:
        return assign(stmt, Value::string(captured(stmt.body, scope)), scope), Flow::kNormal;
      case Stmt::Kind::kMacro:
        return scope.set(stmt.text, Value(Value::Data(stmt.macro.get()))), Flow::kNormal;
      case Stmt::Kind::kGeneration:
        return exec_generation(stmt, scope);
      case Stmt::Kind::kBreak:
        return Flow::kBreak;
      case Stmt::Kind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNormal;
  }

  void exec_output(const Stmt& stmt, Scope& scope) {
    const Value value = eval(*stmt.expr, scope);
    budget_.charge(value);
    write(to_text(value));
  }

  Flow exec_if(const Stmt& stmt, Scope& scope) {
    for (const Branch& branch : stmt.branches)
      if (eval(*branch.condition, scope).truthy()) return exec(branch.body, scope);
    return exec(stmt.otherwise, scope);
  }

  Flow exec_generation(const Stmt& stmt, Scope& scope) {
    const std::size_t begin = output_.text.size();
    const Flow flow = exec(stmt.body, scope);
    if (capture_ == nullptr && output_.text.size() > begin)
      output_.generations.push_back({begin, output_.text.size()});
    return flow;
  }

  void unpack(const std::vector<std::string>& targets, const Value& value, Scope& scope) {
    if (targets.size() == 1) return scope.set(targets[0], value);
    const std::vector<Value> items = iterate(budget_, value);
    if (items.size() != targets.size())
      fail(ErrorKind::kFormat, "{} values for {} names", items.size(), targets.size());
    for (std::size_t i = 0; i < items.size(); ++i) scope.set(targets[i], items[i]);
  }

  void assign(const Stmt& stmt, const Value& value, Scope& scope) {
    if (stmt.attribute.empty()) return unpack(stmt.targets, value, scope);
    const Value* object = scope.find(stmt.text);
    if (object == nullptr || !object->is_namespace())
      fail(ErrorKind::kFormat, "{{% set {}.{} %}} needs a namespace", stmt.text, stmt.attribute);
    budget_.charge(object->entries().size() / 16);
    object->as_namespace().set(stmt.attribute, value);
  }

  void exec_for(const Stmt& stmt, Scope& scope) {
    std::vector<Value> items = iterate(budget_, eval(*stmt.expr, scope));
    if (stmt.filter) {
      std::vector<Value> kept;
      for (Value& item : items) {
        Scope inner{&scope, {}};
        unpack(stmt.targets, item, inner);
        if (eval(*stmt.filter, inner).truthy()) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    if (items.empty()) {
      exec(stmt.otherwise, scope);
      return;
    }
    for (std::size_t i = 0; i < items.size(); ++i) {
      budget_.charge(16);  // the loop variable is made anew
      Scope inner{&scope, {}};
      inner.set("loop", loop_variable(items, i));
      unpack(stmt.targets, items[i], inner);
      if (exec(stmt.body, inner) == Flow::kBreak) break;
    }
  }

  static Value loop_variable(const std::vector<Value>& items, std::size_t i) {
    const std::size_t n = items.size();
    const auto number = [](std::size_t k) { return Value::integer(static_cast<std::int64_t>(k)); };
    std::vector<Entry> entries = {{"index", number(i + 1)},
                                  {"index0", number(i)},
                                  {"revindex", number(n - i)},
                                  {"revindex0", number(n - i - 1)},
                                  {"first", Value::boolean(i == 0)},
                                  {"last", Value::boolean(i + 1 == n)},
                                  {"length", number(n)}};
    if (i > 0 && !items[i - 1].is_namespace()) entries.emplace_back("previtem", items[i - 1]);
    if (i + 1 < n) entries.emplace_back("nextitem", items[i + 1]);
    return Value::dict(std::move(entries));
  }

  Value eval(const Expr& expr, Scope& scope) {
    const Nested nested(*this);
    budget_.charge(1);
    line_ = expr.line;
    switch (expr.kind) {
      case Expr::Kind::kLiteral:
        return expr.literal;
      case Expr::Kind::kName:
        return look_up(expr.name, scope);
      case Expr::Kind::kList:
        return eval_list(expr, scope);
      case Expr::Kind::kDict:
        return eval_dict(expr, scope);
      case Expr::Kind::kAttribute:
        return get_item(budget_, eval(*expr.children[0], scope), Value::string(expr.name));
      case Expr::Kind::kItem:
        return eval_item(expr, scope);
      case Expr::Kind::kSlice:
        return eval_slice(expr, scope);
      case Expr::Kind::kCall:
        return eval_call(expr, scope);
      case Expr::Kind::kFilter:
        return eval_filter(expr, scope);
      case Expr::Kind::kTest:
        return eval_test(expr, scope);
      case Expr::Kind::kUnary:
        return eval_unary(expr, scope);
      case Expr::Kind::kBinary:
        return eval_binary(expr, scope);
      case Expr::Kind::kAnd:
        return eval_logic(expr, scope, false);
      case Expr::Kind::kOr:
        return eval_logic(expr, scope, true);
      case Expr::Kind::kCompare:
        return eval_compare(expr, scope);
      case Expr::Kind::kTernary:
        return eval_ternary(expr, scope);
    }
    return Value();
  }

  Value look_up(const std::string& name, const Scope& scope) {
    budget_.charge(scope.names.size() / 16);
    const Value* value = scope.find(name);
    return value != nullptr ? *value : Value::undefined(name);
  }

  Value eval_list(const Expr& expr, Scope& scope) {
    std::vector<Value> items;
    for (const ExprPtr& child : expr.children) items.push_back(eval(*child, scope));
    return Value::list(std::move(items));
  }

  Value eval_dict(const Expr& expr, Scope& scope) {
    std::vector<Entry> entries;
    for (std::size_t i = 0; i < expr.children.size(); i += 2) {
      const Value key = eval(*expr.children[i], scope);
      if (!key.is_string()) fail(ErrorKind::kFormat, "a dict key of kind {}", key.kind_name());
      Value value = eval(*expr.children[i + 1], scope);
      budget_.charge(1 + entries.size() / 16);
      const auto same = std::find_if(entries.begin(), entries.end(),
                                     [&](const Entry& e) { return e.first == key.as_string(); });
      if (same != entries.end())
        same->second = std::move(value);
      else
        entries.emplace_back(key.as_string(), std::move(value));
    }
    return Value::dict(std::move(entries));
  }

  Value eval_item(const Expr& expr, Scope& scope) {
    const Value object = eval(*expr.children[0], scope);
    return get_item(budget_, object, eval(*expr.children[1], scope));
  }

  Value eval_slice(const Expr& expr, Scope& scope) {
    const auto part = [&](std::size_t i) {
      return expr.children[i] ? eval(*expr.children[i], scope) : Value::none();
    };
    const Value object = part(0), begin = part(1), end = part(2);
    return get_slice(budget_, object, begin, end, part(3));
  }

  Args arguments(const Expr& expr, Scope& scope) {
    Args args;
    for (std::size_t i = 1; i < expr.children.size(); ++i)
      args.positional.push_back(eval(*expr.children[i], scope));
    for (const auto& [name, value] : expr.keywords) args.named.emplace_back(name, eval(*value, scope));
    return args;
  }

  Value eval_call(const Expr& expr, Scope& scope) {
    const Expr& callee = *expr.children[0];
    if (callee.kind == Expr::Kind::kAttribute) {
      const Value object = eval(*callee.children[0], scope);
      const Value* macro = object.find(callee.name);
      if (macro == nullptr || !macro->is_macro())
        return call_method(budget_, object, callee.name, arguments(expr, scope));
      return call_macro(macro->as_macro(), arguments(expr, scope));
    }
    const Value function = eval(callee, scope);
    if (function.is_macro()) return call_macro(function.as_macro(), arguments(expr, scope));
    if (function.is_builtin()) {
      const Args args = arguments(expr, scope);
      line_ = expr.line;
      return call_function(budget_, function.as_builtin(), args);
    }
    if (function.is_undefined()) fail(ErrorKind::kFormat, "'{}' is undefined", function.undefined_name());
    fail(ErrorKind::kFormat, "a {} is not a function", function.kind_name());
  }

  Value call_macro(const Macro& macro, const Args& args) {
    const Stmt& stmt = *macro.statement;
    if (args.positional.size() > stmt.targets.size())
      fail(ErrorKind::kFormat, "{} arguments for the {} of macro {}", args.positional.size(),
           stmt.targets.size(), stmt.text);
    Scope inner{top_, {}};
    for (std::size_t i = 0; i < stmt.targets.size(); ++i) {
      const Value* given = args.find(i, stmt.targets[i]);
      inner.set(stmt.targets[i], given != nullptr   ? *given
                                 : stmt.defaults[i] ? eval(*stmt.defaults[i], inner)
                                                    : Value::undefined(stmt.targets[i]));
    }
    return Value::string(captured(stmt.body, inner));
  }

  Value eval_filter(const Expr& expr, Scope& scope) {
    const Value operand = eval(*expr.children[0], scope);
    return apply_filter(budget_, expr.name, operand, arguments(expr, scope));
  }

  Value eval_test(const Expr& expr, Scope& scope) {
    const Value operand = eval(*expr.children[0], scope);
    return Value::boolean(apply_test(budget_, expr.name, operand, arguments(expr, scope)));
  }

  Value eval_unary(const Expr& expr, Scope& scope) {
    const Value operand = eval(*expr.children[0], scope);
    if (expr.name == "not") return Value::boolean(!operand.truthy());
    if (!operand.is_number()) fail(ErrorKind::kFormat, "'{}' of a {}", expr.name, operand.kind_name());
    return expr.name == "-" ? binary(budget_, "*", operand, Value::integer(-1)) : operand;
  }

  Value eval_binary(const Expr& expr, Scope& scope) {
    const Value left = eval(*expr.children[0], scope);
    const Value right = eval(*expr.children[1], scope);
    line_ = expr.line;
    return binary(budget_, expr.name, left, right);
  }

  Value eval_logic(const Expr& expr, Scope& scope, bool stop_at) {
    Value left = eval(*expr.children[0], scope);
    return left.truthy() == stop_at ? left : eval(*expr.children[1], scope);
  }

  Value eval_compare(const Expr& expr, Scope& scope) {
    Value left = eval(*expr.children[0], scope);
    for (std::size_t i = 0; i < expr.ops.size(); ++i) {
      Value right = eval(*expr.children[i + 1], scope);
      if (!compare(budget_, expr.ops[i], left, right)) return Value::boolean(false);
      left = std::move(right);
    }
    return Value::boolean(true);
  }

  Value eval_ternary(const Expr& expr, Scope& scope) {
    if (eval(*expr.children[1], scope).truthy()) return eval(*expr.children[0], scope);
    return expr.children[2] ? eval(*expr.children[2], scope) : Value::undefined("the else of an inline if");
  }

  const JinjaLimits& limits_;
  Budget budget_;
  Scope globals_;
  Scope* top_ = nullptr;
  JinjaOutput output_;
  std::string* capture_ = nullptr;
  std::size_t depth_ = 0;
  int line_ = 1;
};

}  // namespace

JinjaOutput interpret(const Block& program, const OrderedJson& variables, const JinjaLimits& limits,
                      std::size_t steps) {
  return Interpreter(limits, steps).run(program, variables);
}

}  // namespace llava::jinja
