#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace llava::jinja {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_white(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f' || c == '\v'; }

std::string normalise_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();  // keep_trailing_newline=False
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalise_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const std::size_t tag = find_tag(at_);
      if (tag == std::string::npos) {
        push_data(source_.substr(at_));
        at_ = source_.size();
        break;
      }
      lex_tag(tag);
    }
    push(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::size_t find_tag(std::size_t from) const {
    for (std::size_t i = from; (i = source_.find('{', i)) != std::string::npos; ++i)
      if (i + 1 < source_.size() &&
          (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#'))
        return i;
    return std::string::npos;
  }

  void push(Token::Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void push_data(std::string_view text) {
    if (!text.empty()) push(Token::Kind::kData, std::string(text));
    line_ += static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  }

  /// The text before a tag, shortened as the tag's mark and lstrip_blocks ask; `at_` goes to the tag's
  /// inside.
  void take_data(std::size_t tag, bool is_variable) {
    const char mark = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    std::string_view data = std::string_view(source_).substr(at_, tag - at_);
    const int line_at_tag = line_ + static_cast<int>(std::count(data.begin(), data.end(), '\n'));
    if (mark == '-') {
      while (!data.empty() && is_white(data.back())) data.remove_suffix(1);
    } else if (mark != '+' && !is_variable) {
      const std::size_t newline = data.rfind('\n');
      const std::size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_begin > 0 || line_starting_) &&
          std::all_of(data.begin() + static_cast<std::ptrdiff_t>(line_begin), data.end(), is_white))
        data = data.substr(0, line_begin);
    }
    push_data(data);
    line_ = line_at_tag;
    at_ = tag + 2 + (mark == '-' || mark == '+' ? 1 : 0);
  }

  /// Behind the end of a tag: what '-' and trim_blocks swallow.
  void end_tag(char mark, bool is_variable) {
    const std::size_t begin = at_;
    if (mark == '-') {
      while (at_ < source_.size() && is_white(source_[at_])) ++at_;
    } else if (mark != '+' && !is_variable && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(begin),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_), '\n'));
    line_starting_ = at_ > begin && source_[at_ - 1] == '\n';
  }

  void lex_tag(std::size_t tag) {
    const char kind = source_[tag + 1];
    take_data(tag, kind == '{');
    if (kind == '#') return lex_comment();
    if (kind == '%' && lex_raw()) return;
    push(kind == '{' ? Token::Kind::kVariableBegin : Token::Kind::kBlockBegin, "");
    lex_inside(kind == '{');
  }

  void lex_comment() {
    const std::size_t end = source_.find("#}", at_);
    if (end == std::string::npos)
      fail(ErrorKind::kFormat, "chat template, line {}: a comment is not closed", line_);
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    const char mark = end > at_ ? source_[end - 1] : '\0';
    at_ = end + 2;
    end_tag(mark, false);
  }

  /// {% raw %} … {% endraw %}; false if the tag is another one.
  bool lex_raw() {
    std::size_t at = at_;
    const auto skip_white = [&] {
      while (at < source_.size() && is_white(source_[at])) ++at;
    };
    const auto take = [&](std::string_view word) {
      if (std::string_view(source_).substr(at, word.size()) != word) return false;
      at += word.size();
      return true;
    };
    /// [white] word [white] [-+] %}, from `at`; the mark, or nothing.
    const auto closes = [&](std::string_view word, char& mark) {
      skip_white();
      if (!take(word)) return false;
      skip_white();
      mark = at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at++] : '\0';
      return take("%}");
    };
    char mark = '\0';
    if (!closes("raw", mark)) return false;
    at_ = at;
    end_tag(mark, false);
    for (std::size_t tag = at_; (tag = source_.find("{%", tag)) != std::string::npos; tag += 2) {
      at = tag + 2;
      if (at < source_.size() && (source_[at] == '-' || source_[at] == '+')) ++at;
      if (!closes("endraw", mark)) continue;
      take_data(tag, false);
      at_ = at;
      end_tag(mark, false);
      return true;
    }
    fail(ErrorKind::kFormat, "chat template, line {}: {{% raw %}} is not closed", line_);
  }

  void lex_inside(bool is_variable) {
    const std::string_view closing = is_variable ? "}}" : "%}";
    std::size_t open = 0;  // brackets: "}}" inside a dict does not end the tag
    while (true) {
      while (at_ < source_.size() && is_white(source_[at_])) line_ += source_[at_++] == '\n';
      if (at_ >= source_.size())
        fail(ErrorKind::kFormat, "chat template, line {}: a tag is not closed", line_);
      const std::string_view rest = std::string_view(source_).substr(at_);
      const char mark = rest[0] == '-' || rest[0] == '+' ? rest[0] : '\0';
      if (open == 0 && rest.substr(mark != '\0' ? 1 : 0, 2) == closing) {
        at_ += 2 + (mark != '\0' ? 1 : 0);
        push(is_variable ? Token::Kind::kVariableEnd : Token::Kind::kBlockEnd, "");
        return end_tag(mark, is_variable);
      }
      lex_token(rest);
      const Token& token = tokens_.back();
      if (token.kind != Token::Kind::kOperator) continue;
      if (token.text == "(" || token.text == "[" || token.text == "{") ++open;
      if ((token.text == ")" || token.text == "]" || token.text == "}") && open > 0) --open;
    }
  }

  void lex_token(std::string_view rest) {
    if (is_name_start(rest[0])) {
      std::size_t n = 1;
      while (n < rest.size() && (is_name_start(rest[n]) || is_digit(rest[n]))) ++n;
      push(Token::Kind::kName, std::string(rest.substr(0, n)));
      at_ += n;
    } else if (is_digit(rest[0])) {
      lex_number(rest);
    } else if (rest[0] == '\'' || rest[0] == '"') {
      lex_string(rest[0]);
    } else {
      lex_operator(rest);
    }
  }

  void lex_number(std::string_view rest) {
    std::string text;
    std::size_t n = 0;
    const auto digits = [&] {
      for (; n < rest.size() && (is_digit(rest[n]) || (rest[n] == '_' && n > 0)); ++n)
        if (rest[n] != '_') text += rest[n];
    };
    digits();
    bool is_float = false;
    if (n + 1 < rest.size() && rest[n] == '.' && is_digit(rest[n + 1])) {
      is_float = true;
      text += rest[n++];
      digits();
    }
    if (n + 1 < rest.size() && (rest[n] == 'e' || rest[n] == 'E')) {
      const std::size_t sign = rest[n + 1] == '-' || rest[n + 1] == '+' ? 1 : 0;
      if (n + 1 + sign < rest.size() && is_digit(rest[n + 1 + sign])) {
        is_float = true;
        text += rest.substr(n, 1 + sign);
        n += 1 + sign;
        digits();
      }
    }
    if (text.size() > (is_float ? 40U : 18U))
      fail(ErrorKind::kFormat, "chat template, line {}: the number {} is too long", line_,
           text.substr(0, 40));
    push(is_float ? Token::Kind::kFloat : Token::Kind::kInteger, std::move(text));
    at_ += n;
  }

  void lex_operator(std::string_view rest) {
    static constexpr std::array<std::string_view, 24> kOperators = {
        "==", "!=", ">=", "<=", "//", "**", "+", "-", "*", "/", "%", "~",
        "(",  ")",  "[",  "]",  "{",  "}",  ">", "<", "=", ".", ":", ","};
    for (const std::string_view op : kOperators)
      if (rest.substr(0, op.size()) == op) {
        push(Token::Kind::kOperator, std::string(op));
        at_ += op.size();
        return;
      }
    if (rest[0] == '|') {
      push(Token::Kind::kOperator, "|");
      ++at_;
      return;
    }
    fail(ErrorKind::kFormat, "chat template, line {}: unexpected character '{}'", line_, rest[0]);
  }

  void lex_string(char quote) {
    std::string text;
    const int line = line_;
    for (++at_;; ++at_) {
      if (at_ >= source_.size())
        fail(ErrorKind::kFormat, "chat template, line {}: a string is not closed", line);
      const char c = source_[at_];
      if (c == quote) break;
      if (c == '\n') ++line_;
      if (c == '\\' && at_ + 1 < source_.size())
        lex_escape(text);
      else
        text += c;
    }
    ++at_;
    push(Token::Kind::kString, std::move(text));
  }

  void lex_escape(std::string& text) {
    static constexpr std::string_view kFrom = "abfnrtv\\'\"", kTo = "\a\b\f\n\r\t\v\\'\"";
    const char c = source_[++at_];
    const std::size_t simple = kFrom.find(c);
    if (simple != std::string_view::npos) {
      text += kTo[simple];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const std::size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      std::uint32_t code = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const char h = at_ + 1 < source_.size() ? source_[++at_] : '\0';
        const int digit = is_digit(h)            ? h - '0'
                          : h >= 'a' && h <= 'f' ? h - 'a' + 10
                          : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                                 : -1;
        if (digit < 0)
          fail(ErrorKind::kFormat, "chat template, line {}: a \\{} escape needs {} hexadecimal digits",
               line_, c, n);
        code = code * 16 + static_cast<std::uint32_t>(digit);
      }
      append_code_point(code, text);
    } else if (c == '\n') {
      ++line_;  // a backslash at the end of a line joins it with the next
    } else {
      (text += '\\') += c;
    }
  }

  void append_code_point(std::uint32_t code, std::string& text) {
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      fail(ErrorKind::kFormat, "chat template, line {}: U+{:X} is not a character", line_, code);
    const auto put = [&](std::uint32_t byte) { text += static_cast<char>(byte); };
    if (code < 0x80) return put(code);
    if (code < 0x800) return put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
    if (code < 0x10000)
      return put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
    put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F)), put(0x80 | (code >> 6 & 0x3F)),
        put(0x80 | (code & 0x3F));
  }

  std::string source_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace llava::jinja
