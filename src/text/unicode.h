#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

/// UTF-8 and Unicode properties. The data are made at build time by tools/unicode/make_tables.py.
namespace llava::unicode {

inline constexpr char32_t kReplacement = 0xFFFD;
inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

/// One step through UTF-8 text. Malformed bytes give U+FFFD for each maximal well-formed beginning, as
/// Rust's from_utf8_lossy and the Unicode standard (3.9, table 3-8) do.
struct Step {
  char32_t code = kReplacement;
  std::uint8_t len = 1;  ///< bytes consumed, at least 1
  bool valid = false;
  bool truncated = false;  ///< malformed only because the text ends here
};
/// The character at text[pos]; pos < text.size().
Step step(std::string_view text, std::size_t pos);

/// The character at text[pos] of text known to be valid; pos < text.size().
inline char32_t at(std::string_view text, std::size_t pos) { return step(text, pos).code; }

void append(std::string& out, char32_t code);
std::string encode(char32_t code);
bool is_valid(std::string_view text);
/// The text with every malformed sequence replaced by U+FFFD.
std::string replace_invalid(std::string_view text);
std::u32string to_utf32(std::string_view text);
std::string to_utf8(std::u32string_view text);

bool is_letter(char32_t c);       ///< \p{L} of Unicode 16
bool is_number(char32_t c);       ///< \p{N} of Unicode 16
bool is_numeric(char32_t c);      ///< \p{N} of Unicode 17 (Rust's char::is_numeric)
bool is_punctuation(char32_t c);  ///< \p{P} of Unicode 16
bool is_word(char32_t c);         ///< \w
bool is_space(char32_t c);        ///< White_Space

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
/// Normalises valid UTF-8 by the data of Unicode 9 (that of the reference tokenizers); linear time.
std::string normalize(std::string_view text, NormalForm form);
/// Lower case of every character on its own (no final-sigma rule).
std::string to_lower(std::string_view text);

/// UTF-8 that arrives in pieces: gives out whole characters only.
class Utf8Stream {
 public:
  /// Appends to `out` what is complete; malformed bytes become U+FFFD.
  void push(std::string_view bytes, std::string& out);
  /// Ends the text: a begun character becomes one U+FFFD.
  void flush(std::string& out);
  bool pending() const { return !tail_.empty(); }

 private:
  std::string tail_;
};

}  // namespace llava::unicode
