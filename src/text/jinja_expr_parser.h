#pragma once
#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace llava::jinja {

/// Expressions: recursive descent in Jinja's order of precedence. The parser of statements builds on it.
class ExprParser {
 public:
  ExprParser(std::vector<Token> tokens, std::size_t max_depth)
      : tokens_(std::move(tokens)), max_depth_(max_depth) {}

 protected:
  /// Counts nested calls while it lives.
  struct Nested {
    explicit Nested(ExprParser& parser) : owner(parser) {
      if (++owner.nesting_ > owner.max_depth_) owner.error("nested deeper than {}", owner.max_depth_);
    }
    ~Nested() { --owner.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;
    ExprParser& owner;
  };

  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& next() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  template <class... Args>
  [[noreturn]] void error(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::kFormat, "chat template, line {}: {}", peek().line,
         fmt::format(format, std::forward<Args>(args)...));
  }
  bool is_op(std::string_view op, std::size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::kOperator && peek(ahead).text == op;
  }
  bool is_word(std::string_view word, std::size_t ahead = 0) const {
    return peek(ahead).kind == Token::Kind::kName && peek(ahead).text == word;
  }
  bool take_op(std::string_view op) { return is_op(op) && (next(), true); }
  bool take_word(std::string_view word) { return is_word(word) && (next(), true); }
  void expect_op(std::string_view op);
  std::string expect_name();
  static std::string describe(const Token& token);
  ExprPtr make(Expr::Kind kind, std::string name = {}) const;
  void adopt(Expr& parent, ExprPtr child) const;
  ExprPtr binary(Expr::Kind kind, std::string name, ExprPtr left, ExprPtr right) const;

  /// a, b, c without brackets is a list; `with_ternary` false inside `for … in`.
  ExprPtr parse_tuple(bool with_ternary);
  ExprPtr parse_expression();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_unary(bool with_filter);
  ExprPtr parse_primary();
  ExprPtr parse_name();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr expr);
  ExprPtr parse_subscript(ExprPtr object);

  ExprPtr parse_call(ExprPtr callee);
  void parse_arguments(Expr& call);
  ExprPtr parse_filters(ExprPtr expr);
  ExprPtr parse_test(ExprPtr operand);

  std::vector<Token> tokens_;
  std::size_t max_depth_;
  std::size_t at_ = 0;
  std::size_t nesting_ = 0;
};

}  // namespace llava::jinja
