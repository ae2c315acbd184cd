#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace llava {

/// A known splitting regex, run by a hand-written scanner in linear time (there is no regex engine here).
class SplitScanner {
 public:
  enum class Kind {
    kLiteral,         ///< a fixed string
    kGpt2,            ///< GPT-2's words
    kCl100k,          ///< Llama 3's and Qwen 2's words; they differ in how many digits make a number
    kNumberRun,       ///< \p{N}+ with a limit on the length
    kAsciiDigits,     ///< exactly `max_digits` of [0-9]
    kPunctuationRun,  ///< [\p{P}\$\+<=>\^~\|]+
  };

  static SplitScanner literal(std::string text);
  /// Error{kUnsupported} names a regex that is not known.
  static SplitScanner from_regex(std::string_view regex);

  explicit SplitScanner(Kind kind, std::size_t max_digits = 0) : kind_(kind), max_digits_(max_digits) {}

  struct Match {
    std::size_t begin, end;
  };
  /// The leftmost match at or after `pos`; nullopt if there is none. `text` is valid UTF-8; matches are
  /// never empty.
  std::optional<Match> next(std::string_view text, std::size_t pos) const;

 private:
  std::size_t match_end(std::string_view text, std::size_t pos) const;

  Kind kind_;
  std::size_t max_digits_;
  std::string text_;
};

}  // namespace llava
