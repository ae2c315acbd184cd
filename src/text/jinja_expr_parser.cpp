#include "text/jinja_expr_parser.h"

#include <cstdlib>

namespace llava::jinja {

using Kind = Expr::Kind;

void ExprParser::expect_op(std::string_view op) {
  if (!take_op(op)) error("expected '{}', found {}", op, describe(peek()));
}

std::string ExprParser::expect_name() {
  if (peek().kind != Token::Kind::kName) error("expected a name, found {}", describe(peek()));
  return next().text;
}

std::string ExprParser::describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::kEnd:
      return "the end of the template";
    case Token::Kind::kBlockEnd:
      return "'%}'";
    case Token::Kind::kVariableEnd:
      return "'}}'";
    default:
      return "'" + token.text.substr(0, 40) + "'";
  }
}

ExprPtr ExprParser::make(Kind kind, std::string name) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = peek().line;
  expr->name = std::move(name);
  return expr;
}

void ExprParser::adopt(Expr& parent, ExprPtr child) const {
  if (child) parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > max_depth_) error("an expression is nested deeper than {}", max_depth_);
  parent.children.push_back(std::move(child));
}

ExprPtr ExprParser::binary(Kind kind, std::string name, ExprPtr left, ExprPtr right) const {
  ExprPtr expr = make(kind, std::move(name));
  adopt(*expr, std::move(left));
  adopt(*expr, std::move(right));
  return expr;
}

ExprPtr ExprParser::parse_tuple(bool with_ternary) {
  ExprPtr first = with_ternary ? parse_expression() : parse_or();
  if (!is_op(",")) return first;
  ExprPtr list = make(Kind::kList);
  adopt(*list, std::move(first));
  while (take_op(",")) {
    if (is_op(")") || peek().kind == Token::Kind::kVariableEnd || peek().kind == Token::Kind::kBlockEnd)
      break;
    adopt(*list, with_ternary ? parse_expression() : parse_or());
  }
  return list;
}

ExprPtr ExprParser::parse_expression() {
  const Nested nested(*this);
  ExprPtr expr = parse_or();
  while (take_word("if")) {
    ExprPtr ternary = make(Kind::kTernary);
    adopt(*ternary, std::move(expr));
    adopt(*ternary, parse_or());
    adopt(*ternary, take_word("else") ? parse_expression() : nullptr);
    expr = std::move(ternary);
  }
  return expr;
}

ExprPtr ExprParser::parse_or() {
  ExprPtr left = parse_and();
  while (take_word("or")) left = binary(Kind::kOr, "or", std::move(left), parse_and());
  return left;
}

ExprPtr ExprParser::parse_and() {
  ExprPtr left = parse_not();
  while (take_word("and")) left = binary(Kind::kAnd, "and", std::move(left), parse_not());
  return left;
}

ExprPtr ExprParser::parse_not() {
  if (!is_word("not")) return parse_compare();
  const Nested nested(*this);
  ExprPtr expr = make(Kind::kUnary, next().text);
  adopt(*expr, parse_not());
  return expr;
}

ExprPtr ExprParser::parse_compare() {
  ExprPtr first = parse_sum();
  ExprPtr compare;
  while (true) {
    std::string op;
    for (const char* candidate : {"==", "!=", "<=", ">=", "<", ">"})
      if (op.empty() && is_op(candidate)) op = next().text;
    if (op.empty() && take_word("in")) op = "in";
    if (op.empty() && is_word("not") && is_word("in", 1)) op = (next(), next(), "not in");
    if (op.empty()) return compare ? std::move(compare) : std::move(first);
    if (!compare) {
      compare = make(Kind::kCompare);
      adopt(*compare, std::move(first));
    }
    compare->ops.push_back(std::move(op));
    adopt(*compare, parse_sum());
  }
}

ExprPtr ExprParser::parse_sum() {
  ExprPtr left = parse_concat();
  while (is_op("+") || is_op("-")) {
    std::string op = next().text;
    left = binary(Kind::kBinary, std::move(op), std::move(left), parse_concat());
  }
  return left;
}

ExprPtr ExprParser::parse_concat() {
  ExprPtr left = parse_product();
  while (take_op("~")) left = binary(Kind::kBinary, "~", std::move(left), parse_product());
  return left;
}

ExprPtr ExprParser::parse_product() {
  ExprPtr left = parse_unary(true);
  while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
    std::string op = next().text;
    left = binary(Kind::kBinary, std::move(op), std::move(left), parse_unary(true));
  }
  return left;
}

ExprPtr ExprParser::parse_unary(bool with_filter) {
  const Nested nested(*this);
  ExprPtr expr;
  if (is_op("-") || is_op("+")) {
    expr = make(Kind::kUnary, next().text);
    adopt(*expr, parse_unary(false));
  } else {
    expr = parse_postfix(parse_primary());
    if (take_op("**")) expr = binary(Kind::kBinary, "**", std::move(expr), parse_unary(false));
  }
  return with_filter ? parse_filters(std::move(expr)) : std::move(expr);
}

ExprPtr ExprParser::parse_primary() {
  const Token& token = peek();
  switch (token.kind) {
    case Token::Kind::kName:
      return parse_name();
    case Token::Kind::kString: {
      ExprPtr expr = make(Kind::kLiteral);
      std::string text;
      while (peek().kind == Token::Kind::kString) text += next().text;
      expr->literal = Value::string(std::move(text));
      return expr;
    }
    case Token::Kind::kInteger:
    case Token::Kind::kFloat: {
      ExprPtr expr = make(Kind::kLiteral);
      const std::string& text = next().text;
      expr->literal = token.kind == Token::Kind::kInteger
                          ? Value::integer(std::strtoll(text.c_str(), nullptr, 10))
                          : Value::real(std::strtod(text.c_str(), nullptr));
      return expr;
    }
    default:
      break;
  }
  if (take_op("(")) {
    if (take_op(")")) return make(Kind::kList);
    ExprPtr expr = parse_tuple(true);
    expect_op(")");
    return expr;
  }
  if (is_op("[")) return parse_list();
  if (is_op("{")) return parse_dict();
  error("expected an expression, found {}", describe(token));
}

ExprPtr ExprParser::parse_name() {
  ExprPtr expr = make(Kind::kLiteral);
  const std::string name = next().text;
  if (name == "true" || name == "True")
    expr->literal = Value::boolean(true);
  else if (name == "false" || name == "False")
    expr->literal = Value::boolean(false);
  else if (name == "none" || name == "None")
    expr->literal = Value::none();
  else
    expr->kind = Kind::kName, expr->name = name;
  return expr;
}

ExprPtr ExprParser::parse_list() {
  ExprPtr list = make(Kind::kList);
  expect_op("[");
  while (!take_op("]")) {
    adopt(*list, parse_expression());
    if (!is_op("]")) expect_op(",");
  }
  return list;
}

ExprPtr ExprParser::parse_dict() {
  ExprPtr dict = make(Kind::kDict);
  expect_op("{");
  while (!take_op("}")) {
    adopt(*dict, parse_expression());
    expect_op(":");
    adopt(*dict, parse_expression());
    if (!is_op("}")) expect_op(",");
  }
  return dict;
}

ExprPtr ExprParser::parse_postfix(ExprPtr expr) {
  while (true) {
    if (take_op(".")) {
      if (peek().kind == Token::Kind::kInteger) {
        ExprPtr key = make(Kind::kLiteral);
        key->literal = Value::integer(std::strtoll(next().text.c_str(), nullptr, 10));
        expr = binary(Kind::kItem, "", std::move(expr), std::move(key));
      } else {
        ExprPtr attribute = make(Kind::kAttribute, expect_name());
        adopt(*attribute, std::move(expr));
        expr = std::move(attribute);
      }
    } else if (take_op("[")) {
      expr = parse_subscript(std::move(expr));
    } else if (is_op("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr ExprParser::parse_subscript(ExprPtr object) {
  ExprPtr part[3];
  std::size_t n = 0;
  bool is_slice = false;
  for (; n < 3; ++n) {
    if (!is_op(":") && !is_op("]")) part[n] = parse_expression();
    if (!take_op(":")) break;
    is_slice = true;
  }
  expect_op("]");
  ExprPtr expr = make(is_slice ? Kind::kSlice : Kind::kItem);
  adopt(*expr, std::move(object));
  if (!is_slice && !part[0]) error("an empty subscript");
  adopt(*expr, std::move(part[0]));
  if (is_slice) adopt(*expr, std::move(part[1])), adopt(*expr, std::move(part[2]));
  return expr;
}

ExprPtr ExprParser::parse_call(ExprPtr callee) {
  ExprPtr call = make(Kind::kCall);
  adopt(*call, std::move(callee));
  parse_arguments(*call);
  return call;
}

void ExprParser::parse_arguments(Expr& call) {
  expect_op("(");
  while (!take_op(")")) {
    if (is_op("*") || is_op("**")) error("*args and **kwargs are not supported");
    if (peek().kind == Token::Kind::kName && is_op("=", 1)) {
      std::string name = next().text;
      next();
      ExprPtr value = parse_expression();
      call.depth = std::max(call.depth, value->depth + 1);
      if (call.depth > max_depth_) error("an expression is nested deeper than {}", max_depth_);
      call.keywords.emplace_back(std::move(name), std::move(value));
    } else {
      if (!call.keywords.empty()) error("a positional argument behind a keyword argument");
      adopt(call, parse_expression());
    }
    if (!is_op(")")) expect_op(",");
  }
}

ExprPtr ExprParser::parse_filters(ExprPtr expr) {
  while (true) {
    if (take_op("|")) {
      ExprPtr filter = make(Kind::kFilter, expect_name());
      adopt(*filter, std::move(expr));
      if (is_op("(")) parse_arguments(*filter);
      expr = std::move(filter);
    } else if (take_word("is")) {
      expr = parse_test(std::move(expr));
    } else if (is_op("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr ExprParser::parse_test(ExprPtr operand) {
  const bool negated = take_word("not");
  ExprPtr test = make(Kind::kTest, expect_name());
  adopt(*test, std::move(operand));
  const Token& token = peek();
  const bool is_operand =
      token.kind == Token::Kind::kString || token.kind == Token::Kind::kInteger ||
      token.kind == Token::Kind::kFloat || is_op("[") || is_op("{") ||
      (token.kind == Token::Kind::kName && !is_word("else") && !is_word("or") && !is_word("and") &&
       !is_word("is") && !is_word("if") && !is_word("not") && !is_word("in"));
  if (is_op("("))
    parse_arguments(*test);
  else if (is_operand)
    adopt(*test, parse_postfix(parse_primary()));
  if (!negated) return test;
  ExprPtr expr = make(Kind::kUnary, "not");
  adopt(*expr, std::move(test));
  return expr;
}

}  // namespace llava::jinja
