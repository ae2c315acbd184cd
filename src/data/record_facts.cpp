#include "data/record_facts.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>

namespace llava {

namespace {

/// ASCII that str.split() takes for white space.
constexpr std::array<bool, 128> make_spaces() {
  std::array<bool, 128> spaces{};
  for (const int c : {9, 10, 11, 12, 13, 28, 29, 30, 31, 32}) spaces[static_cast<std::size_t>(c)] = true;
  return spaces;
}
constexpr std::array<bool, 128> kSpaces = make_spaces();

/// The others, all in the basic plane.
bool is_wide_space(std::uint32_t c) {
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// Counts words while it is told, character by character, whether it is white space.
struct WordCounter {
  std::int64_t words = 0;
  bool in_word = false;
  void add(bool space) {
    words += !space && !in_word;
    in_word = !space;
  }
};

/// Length of the white space of several bytes at `p`; 0 if there is none.
std::size_t wide_space(const char* p, const char* end) {
  const auto byte = [&](std::ptrdiff_t i) -> std::uint32_t {
    return end - p > i ? static_cast<std::uint8_t>(p[i]) : 0;
  };
  const std::uint32_t first = byte(0);
  if (first == 0xC2) return is_wide_space(((first & 0x1F) << 6) | (byte(1) & 0x3F)) ? 2 : 0;
  if (first < 0xE1 || first > 0xE3) return 0;
  return is_wide_space(((first & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F)) ? 3 : 0;
}

std::uint32_t hex_digits(const char* p, const char* end) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i, ++p) {
    if (p >= end) return 0;
    const char c = *p;
    const int digit = c >= '0' && c <= '9'                 ? c - '0'
                      : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                           : 0;
    value = value * 16 + static_cast<std::uint32_t>(digit);
  }
  return value;
}

/// Words of a text; with `escaped`, of a JSON string between its quotes.
std::int64_t count_words_in(std::string_view text, bool escaped) {
  WordCounter counter;
  const char* end = text.data() + text.size();
  for (const char* p = text.data(); p < end; ++p) {
    const auto c = static_cast<std::uint8_t>(*p);
    if (c >= 0x80) {
      const std::size_t length = wide_space(p, end);
      counter.add(length > 0);
      if (length > 0) p += length - 1;
    } else if (escaped && c == '\\' && p + 1 < end) {
      ++p;
      const bool unicode = *p == 'u';
      const std::uint32_t code = unicode ? hex_digits(p + 1, end) : 0;
      counter.add(unicode ? (code < 0x80 ? kSpaces[code] : is_wide_space(code))
                          : *p == 'n' || *p == 't' || *p == 'r' || *p == 'f');
      if (unicode) p = std::min(p + 4, end);
    } else {
      counter.add(kSpaces[c]);
    }
  }
  return counter.words;
}

/// A cursor on JSON text. Every step stays within the text, whatever it holds; ok() turns false where it is
/// no JSON.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : p_(text.data()), end_(text.data() + text.size()) {}
  bool ok() const { return ok_; }

  char peek() {
    while (p_ < end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) ++p_;
    return p_ < end_ ? *p_ : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++p_;
    return true;
  }
  /// A string, without its quotes, escapes as they are.
  std::string_view string() {
    if (!take('"')) return fail();
    const char* begin = p_;
    for (const char* from = p_;;) {
      const auto* quote =
          static_cast<const char*>(std::memchr(from, '"', static_cast<std::size_t>(end_ - from)));
      if (quote == nullptr) return fail();
      const char* back = quote;
      while (back > begin && back[-1] == '\\') --back;
      if ((quote - back) % 2 == 0) {
        p_ = quote + 1;
        return {begin, static_cast<std::size_t>(quote - begin)};
      }
      from = quote + 1;
    }
  }
  /// Passes over a value; true if it is neither null nor an empty string.
  bool skip_value() {
    const char first = peek();
    if (first == '"') return !string().empty();
    if (first == '{' || first == '[') {
      skip_nested();
      return true;
    }
    const char* begin = p_;
    while (p_ < end_ && *p_ != ',' && *p_ != '}' && *p_ != ']') ++p_;
    if (p_ == begin) fail();
    return first != 'n';
  }
  /// The members of an object (or items of a list with an empty key): `visit(key)` must pass over the
  /// value.
  template <class Visit>
  void members(char open, char close, Visit&& visit) {
    if (!take(open)) {
      fail();
      return;
    }
    if (take(close)) return;
    do {
      std::string_view key;
      if (open == '{') {
        key = string();
        if (!take(':')) fail();
      }
      if (!ok_) return;
      visit(key);
    } while (ok_ && take(','));
    if (!take(close)) fail();
  }

 private:
  std::string_view fail() {
    ok_ = false;
    p_ = end_;
    return {};
  }
  void skip_nested() {
    std::size_t depth = 0;
    do {
      const char c = peek();
      if (c == '\0') {
        fail();
        return;
      }
      if (c == '"') {
        string();
        continue;
      }
      depth += c == '{' || c == '[';
      depth -= c == '}' || c == ']';
      ++p_;
    } while (depth > 0 && ok_);
  }
  const char* p_;
  const char* end_;
  bool ok_ = true;
};

bool is_turn_text(std::string_view key) { return key == "value" || key == "content"; }
/// Texts of preference records.
constexpr const char* kTextKeys[] = {"prompt", "question", "chosen", "rejected", "completion"};
bool is_text_key(std::string_view key) {
  return std::find(std::begin(kTextKeys), std::end(kTextKeys), key) != std::end(kTextKeys);
}
bool is_media_key(std::string_view key) {
  return key == "image" || key == "images" || key == "video" || key == "videos";
}

RecordFacts make_facts(std::int64_t words, bool has_media) {
  return {static_cast<std::int32_t>(std::min<std::int64_t>(words, kMostWords)), has_media};
}

}  // namespace

std::int64_t count_words(std::string_view text) { return count_words_in(text, false); }

RecordFacts scan_record(std::string_view json) {
  Scanner scanner(json);
  std::int64_t words = 0;
  bool has_media = false;
  scanner.members('{', '}', [&](std::string_view key) {
    if (is_media_key(key)) {
      has_media = scanner.skip_value() || has_media;
    } else if (key == "conversations" && scanner.peek() == '[') {
      scanner.members('[', ']', [&](std::string_view) {
        if (scanner.peek() != '{') {
          scanner.skip_value();
          return;
        }
        scanner.members('{', '}', [&](std::string_view field) {
          if (is_turn_text(field) && scanner.peek() == '"') {
            words += count_words_in(scanner.string(), true);
          } else {
            scanner.skip_value();
          }
        });
      });
    } else if (is_text_key(key) && scanner.peek() == '"') {
      words += count_words_in(scanner.string(), true);
    } else {
      scanner.skip_value();
    }
  });
  return make_facts(words, has_media);
}

RecordFacts record_facts(const Json& record) {
  std::int64_t words = 0;
  bool has_media = false;
  if (!record.is_object()) return {};
  for (const auto& [key, value] : record.items())
    has_media = has_media || (is_media_key(key) && !value.is_null() && value != "");
  for (const char* key : kTextKeys)
    if (record.contains(key) && record[key].is_string())
      words += count_words(record[key].get_ref<const std::string&>());
  const auto turns = record.find("conversations");
  if (turns != record.end() && turns->is_array())
    for (const Json& turn : *turns)
      for (const char* field : {"value", "content"})
        if (turn.is_object() && turn.contains(field) && turn[field].is_string())
          words += count_words(turn[field].get_ref<const std::string&>());
  return make_facts(words, has_media);
}

}  // namespace llava
