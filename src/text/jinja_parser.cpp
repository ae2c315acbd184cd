#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "base/error.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace llava::jinja {

namespace {

using Kind = Expr::Kind;

/// Recursive descent in Jinja's order of precedence.
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
  void expect_op(std::string_view op) {
    if (!take_op(op)) error("expected '{}', found {}", op, describe(peek()));
  }
  std::string expect_name() {
    if (peek().kind != Token::Kind::kName) error("expected a name, found {}", describe(peek()));
    return next().text;
  }
  static std::string describe(const Token& token) {
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

  ExprPtr make(Kind kind, std::string name = {}) const {
    auto expr = std::make_unique<Expr>();
    expr->kind = kind;
    expr->line = peek().line;
    expr->name = std::move(name);
    return expr;
  }
  void adopt(Expr& parent, ExprPtr child) const {
    if (child) parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > max_depth_) error("an expression is nested deeper than {}", max_depth_);
    parent.children.push_back(std::move(child));
  }
  ExprPtr binary(Kind kind, std::string name, ExprPtr left, ExprPtr right) const {
    ExprPtr expr = make(kind, std::move(name));
    adopt(*expr, std::move(left));
    adopt(*expr, std::move(right));
    return expr;
  }

  /// a, b, c without brackets is a list; `with_ternary` false inside `for … in`.
  ExprPtr parse_tuple(bool with_ternary) {
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

  ExprPtr parse_expression() {
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

  ExprPtr parse_or() {
    ExprPtr left = parse_and();
    while (take_word("or")) left = binary(Kind::kOr, "or", std::move(left), parse_and());
    return left;
  }

  ExprPtr parse_and() {
    ExprPtr left = parse_not();
    while (take_word("and")) left = binary(Kind::kAnd, "and", std::move(left), parse_not());
    return left;
  }

  ExprPtr parse_not() {
    if (!is_word("not")) return parse_compare();
    const Nested nested(*this);
    ExprPtr expr = make(Kind::kUnary, next().text);
    adopt(*expr, parse_not());
    return expr;
  }

  ExprPtr parse_compare() {
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

  ExprPtr parse_sum() {
    ExprPtr left = parse_concat();
    while (is_op("+") || is_op("-")) {
      std::string op = next().text;
      left = binary(Kind::kBinary, std::move(op), std::move(left), parse_concat());
    }
    return left;
  }

  ExprPtr parse_concat() {
    ExprPtr left = parse_product();
    while (take_op("~")) left = binary(Kind::kBinary, "~", std::move(left), parse_product());
    return left;
  }

  ExprPtr parse_product() {
    ExprPtr left = parse_unary(true);
    while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
      std::string op = next().text;
      left = binary(Kind::kBinary, std::move(op), std::move(left), parse_unary(true));
    }
    return left;
  }

  ExprPtr parse_unary(bool with_filter) {
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

  ExprPtr parse_primary() {
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

  ExprPtr parse_name() {
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

  ExprPtr parse_list() {
    ExprPtr list = make(Kind::kList);
    expect_op("[");
    while (!take_op("]")) {
      adopt(*list, parse_expression());
      if (!is_op("]")) expect_op(",");
    }
    return list;
  }

  ExprPtr parse_dict() {
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

  ExprPtr parse_postfix(ExprPtr expr) {
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
        ExprPtr call = make(Kind::kCall);
        adopt(*call, std::move(expr));
        parse_arguments(*call);
        expr = std::move(call);
      } else {
        return expr;
      }
    }
  }

  ExprPtr parse_subscript(ExprPtr object) {
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

  void parse_arguments(Expr& call) {
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

  ExprPtr parse_filters(ExprPtr expr) {
    while (true) {
      if (take_op("|")) {
        ExprPtr filter = make(Kind::kFilter, expect_name());
        adopt(*filter, std::move(expr));
        if (is_op("(")) parse_arguments(*filter);
        expr = std::move(filter);
      } else if (take_word("is")) {
        expr = parse_test(std::move(expr));
      } else if (is_op("(")) {
        ExprPtr call = make(Kind::kCall);
        adopt(*call, std::move(expr));
        parse_arguments(*call);
        expr = std::move(call);
      } else {
        return expr;
      }
    }
  }

  ExprPtr parse_test(ExprPtr operand) {
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

  std::vector<Token> tokens_;
  std::size_t max_depth_;
  std::size_t at_ = 0;
  std::size_t nesting_ = 0;
};

class Parser : public ExprParser {
 public:
  using ExprParser::ExprParser;

  Block run() {
    Block block = parse_block({});
    if (peek().kind != Token::Kind::kEnd) error("unexpected {}", describe(peek()));
    return block;
  }

 private:
  /// Statements up to a tag whose first word is one of `ends`; the tag's word stays to be read.
  Block parse_block(const std::vector<std::string_view>& ends) {
    const Nested nested(*this);
    Block block;
    while (true) {
      const Token& token = peek();
      if (token.kind == Token::Kind::kEnd) {
        if (!ends.empty()) error("{{% {} %}} is missing", ends.back());
        return block;
      }
      if (token.kind == Token::Kind::kData) {
        block.push_back(statement(Stmt::Kind::kText));
        block.back().text = next().text;
      } else if (token.kind == Token::Kind::kVariableBegin) {
        next();
        block.push_back(statement(Stmt::Kind::kOutput));
        block.back().expr = parse_tuple(true);
        if (next().kind != Token::Kind::kVariableEnd) unread("'}}'");
      } else {
        next();
        const std::string word = expect_name();
        if (std::find(ends.begin(), ends.end(), word) != ends.end()) {
          end_word_ = word;
          return block;
        }
        parse_statement(word, block);
      }
    }
  }

  [[noreturn]] void unread(std::string_view wanted) {
    --at_;
    error("expected {}, found {}", wanted, describe(peek()));
  }

  Stmt statement(Stmt::Kind kind) const {
    Stmt stmt;
    stmt.kind = kind;
    stmt.line = peek().line;
    return stmt;
  }

  void expect_block_end() {
    if (peek().kind != Token::Kind::kBlockEnd) error("expected '%}}', found {}", describe(peek()));
    next();
  }

  void parse_statement(const std::string& word, Block& block) {
    if (word == "if") return block.push_back(parse_if());
    if (word == "for") return block.push_back(parse_for());
    if (word == "set") return block.push_back(parse_set());
    if (word == "macro") return block.push_back(parse_macro());
    if (word == "generation") {
      Stmt stmt = statement(Stmt::Kind::kGeneration);
      expect_block_end();
      stmt.body = parse_block({"endgeneration"});
      expect_block_end();
      return block.push_back(std::move(stmt));
    }
    if (word == "break" || word == "continue") {
      if (loops_ == 0) error("{{% {} %}} outside a loop", word);
      block.push_back(statement(word == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue));
      return expect_block_end();
    }
    for (const char* other :
         {"include", "import", "from", "extends", "block", "call", "filter", "with", "autoescape", "do"})
      if (word == other)
        fail(ErrorKind::kUnsupported, "chat template, line {}: the statement \"{}\" is not supported",
             peek().line, word);
    error("unexpected {{% {} %}}", word);
  }

  Stmt parse_if() {
    Stmt stmt = statement(Stmt::Kind::kIf);
    do {
      Branch branch;
      branch.condition = parse_tuple(true);
      expect_block_end();
      branch.body = parse_block({"elif", "else", "endif"});
      stmt.branches.push_back(std::move(branch));
    } while (end_word_ == "elif");
    if (end_word_ == "else") {
      expect_block_end();
      stmt.otherwise = parse_block({"endif"});
    }
    expect_block_end();
    return stmt;
  }

  std::vector<std::string> parse_targets() {
    const bool bracket = take_op("(");
    std::vector<std::string> targets = {expect_name()};
    while (take_op(",")) targets.push_back(expect_name());
    if (bracket) expect_op(")");
    return targets;
  }

  Stmt parse_for() {
    Stmt stmt = statement(Stmt::Kind::kFor);
    stmt.targets = parse_targets();
    if (!take_word("in")) error("expected 'in', found {}", describe(peek()));
    stmt.expr = parse_tuple(false);
    if (take_word("if")) stmt.filter = parse_expression();
    if (is_word("recursive"))
      fail(ErrorKind::kUnsupported, "chat template, line {}: recursive loops are not supported",
           peek().line);
    expect_block_end();
    ++loops_;
    stmt.body = parse_block({"else", "endfor"});
    --loops_;
    if (end_word_ == "else") {
      expect_block_end();
      stmt.otherwise = parse_block({"endfor"});
    }
    expect_block_end();
    return stmt;
  }

  Stmt parse_set() {
    Stmt stmt = statement(Stmt::Kind::kSet);
    if (is_op(".", 1)) {
      stmt.text = expect_name();
      next();
      stmt.attribute = expect_name();
    } else {
      stmt.targets = parse_targets();
    }
    if (take_op("=")) {
      stmt.expr = parse_tuple(true);
      expect_block_end();
      return stmt;
    }
    stmt.kind = Stmt::Kind::kSetBlock;
    if (stmt.targets.size() > 1) error("{{% set %}} of a block has one target");
    if (is_op("|"))
      fail(ErrorKind::kUnsupported,
           "chat template, line {}: filters on {{% set %}} blocks are not supported", stmt.line);
    expect_block_end();
    stmt.body = parse_block({"endset"});
    expect_block_end();
    return stmt;
  }

  Stmt parse_macro() {
    Stmt stmt = statement(Stmt::Kind::kMacro);
    stmt.text = expect_name();
    expect_op("(");
    while (!take_op(")")) {
      stmt.targets.push_back(expect_name());
      stmt.defaults.push_back(take_op("=") ? parse_expression() : nullptr);
      if (!is_op(")")) expect_op(",");
    }
    expect_block_end();
    const std::size_t outer_loops = std::exchange(loops_, 0);
    stmt.body = parse_block({"endmacro"});
    loops_ = outer_loops;
    expect_block_end();
    stmt.macro = std::make_unique<Macro>();
    return stmt;
  }

  std::string end_word_;
  std::size_t loops_ = 0;
};

/// The tree no longer moves: macros can point at their statements.
void link_macros(Block& block) {
  for (Stmt& stmt : block) {
    if (stmt.macro) stmt.macro->statement = &stmt;
    for (Branch& branch : stmt.branches) link_macros(branch.body);
    link_macros(stmt.body);
    link_macros(stmt.otherwise);
  }
}

}  // namespace

Block parse_template(const std::string& source, std::size_t max_depth) {
  Block block = Parser(tokenize(source), max_depth).run();
  link_macros(block);
  return block;
}

}  // namespace llava::jinja
