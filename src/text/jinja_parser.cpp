#include <algorithm>

#include "text/jinja_expr_parser.h"

namespace llava::jinja {

namespace {

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
