#include "text/split_scanner.h"

#include <limits>

#include "base/error.h"
#include "text/unicode.h"

namespace llava {
namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

bool is_newline(char32_t c) { return c == '\r' || c == '\n'; }
/// [^\s\p{L}\p{N}]
bool is_other(char32_t c) {
  return !unicode::is_space(c) && !unicode::is_letter(c) && !unicode::is_number(c);
}

/// The end of the run of characters with property `is` from `pos`; at most `limit` characters.
template <class Property>
std::size_t run_end(std::string_view text, std::size_t pos, Property is, std::size_t limit = kNoLimit) {
  for (; limit > 0 && pos < text.size(); --limit) {
    const unicode::Step s = unicode::step(text, pos);
    if (!is(s.code)) break;
    pos += s.len;
  }
  return pos;
}

/// The end of 's 't 're 've 'm 'll 'd at `pos`, or `pos`. `any_case` also takes upper case and the long s
/// (U+017F), as the
/// (?i:) of the reference's regex engine does.
std::size_t contraction_end(std::string_view text, std::size_t pos, bool any_case) {
  if (text[pos] != '\'' || pos + 1 >= text.size()) return pos;
  const std::string_view rest = text.substr(pos + 1);
  if (any_case && rest.substr(0, 2) == "\xC5\xBF") return pos + 3;
  const auto letter = [&](std::size_t i) {
    const char c = i < rest.size() ? rest[i] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  switch (letter(0)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return pos + 2;
    case 'r':
    case 'v':
      return letter(1) == 'e' ? pos + 3 : pos;
    case 'l':
      return letter(1) == 'l' ? pos + 3 : pos;
    default:
      return pos;
  }
}

/// \s+(?!\S)|\s+ at a white space: the run, without its last character where a word follows and something
/// remains.
std::size_t spaces_end(std::string_view text, std::size_t pos) {
  std::size_t last = pos, end = pos;
  while (end < text.size()) {
    const unicode::Step s = unicode::step(text, end);
    if (!unicode::is_space(s.code)) break;
    last = end;
    end += s.len;
  }
  return end == text.size() || last == pos ? end : last;
}

/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
std::size_t gpt2_end(std::string_view text, std::size_t pos) {
  if (const std::size_t end = contraction_end(text, pos, false); end > pos) return end;
  const std::size_t start = text[pos] == ' ' && pos + 1 < text.size() ? pos + 1 : pos;
  const char32_t c = unicode::at(text, start);
  if (unicode::is_letter(c)) return run_end(text, start, unicode::is_letter);
  if (unicode::is_number(c)) return run_end(text, start, unicode::is_number);
  if (is_other(c)) return run_end(text, start, is_other);
  return spaces_end(text, pos);
}

/// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,k}|
/// ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
std::size_t cl100k_end(std::string_view text, std::size_t pos, std::size_t max_digits) {
  if (const std::size_t end = contraction_end(text, pos, true); end > pos) return end;
  const unicode::Step first = unicode::step(text, pos);
  if (unicode::is_letter(first.code)) return run_end(text, pos, unicode::is_letter);
  if (unicode::is_number(first.code)) return run_end(text, pos, unicode::is_number, max_digits);
  const std::size_t second = pos + first.len;
  if (!is_newline(first.code) && second < text.size() && unicode::is_letter(unicode::at(text, second)))
    return run_end(text, second, unicode::is_letter);
  const std::size_t start = first.code == ' ' && second < text.size() ? second : pos;
  if (is_other(unicode::at(text, start))) return run_end(text, run_end(text, start, is_other), is_newline);
  const std::size_t end = run_end(text, pos, unicode::is_space);
  const std::size_t newline = text.substr(pos, end - pos).find_last_of("\r\n");
  return newline != std::string_view::npos ? pos + newline + 1 : spaces_end(text, pos);
}

struct KnownRegex {
  std::string_view regex;
  SplitScanner::Kind kind;
  std::size_t max_digits;
};
constexpr KnownRegex kKnown[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitScanner::Kind::kGpt2, 0},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitScanner::Kind::kGpt2, 0},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitScanner::Kind::kCl100k, 3},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitScanner::Kind::kCl100k, 1},
    {R"(\p{N})", SplitScanner::Kind::kNumberRun, 1},
    {R"(\p{N}{1,3})", SplitScanner::Kind::kNumberRun, 3},
    {R"(\p{N}+)", SplitScanner::Kind::kNumberRun, kNoLimit},
    {R"([0-9][0-9][0-9])", SplitScanner::Kind::kAsciiDigits, 3},
    {R"([\p{P}\$\+<=>\^~\|]+)", SplitScanner::Kind::kPunctuationRun, 0},
};

bool is_split_punctuation(char32_t c) {
  return unicode::is_punctuation(c) ||
         (c < 0x80 && std::string_view("$+<=>^~|").find(static_cast<char>(c)) != std::string_view::npos);
}

}  // namespace

SplitScanner SplitScanner::literal(std::string text) {
  SplitScanner scanner(Kind::kLiteral);
  scanner.text_ = std::move(text);
  return scanner;
}

SplitScanner SplitScanner::from_regex(std::string_view regex) {
  for (const KnownRegex& known : kKnown)
    if (known.regex == regex) return SplitScanner(known.kind, known.max_digits);
  fail(ErrorKind::kUnsupported, "splitting regex \"{}\" (known: those of GPT-2, Llama 3 and Qwen 2)",
       regex.substr(0, 300));
}

std::optional<SplitScanner::Match> SplitScanner::next(std::string_view text, std::size_t pos) const {
  if (kind_ == Kind::kLiteral) {
    const std::size_t hit = text.find(text_, pos);
    if (hit == std::string_view::npos) return std::nullopt;
    return Match{hit, hit + text_.size()};
  }
  for (; pos < text.size(); pos += unicode::step(text, pos).len)
    if (const std::size_t end = match_end(text, pos); end > pos) return Match{pos, end};
  return std::nullopt;
}

/// The end of the match that begins at `pos`, or `pos`.
std::size_t SplitScanner::match_end(std::string_view text, std::size_t pos) const {
  switch (kind_) {
    case Kind::kGpt2:
      return gpt2_end(text, pos);
    case Kind::kCl100k:
      return cl100k_end(text, pos, max_digits_);
    case Kind::kNumberRun:
      return run_end(text, pos, unicode::is_number, max_digits_);
    case Kind::kAsciiDigits: {
      const std::size_t end = run_end(
          text, pos, [](char32_t c) { return c >= '0' && c <= '9'; }, max_digits_);
      return end - pos == max_digits_ ? end : pos;
    }
    case Kind::kPunctuationRun:
      return run_end(text, pos, is_split_punctuation);
    case Kind::kLiteral:
      break;
  }
  return pos;
}

}  // namespace llava
