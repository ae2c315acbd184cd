#pragma once
#include <cstdint>
#include <string>
#include <string_view>

/// Rewards by rule, for objective grpo; all in [0, 1].
namespace llava {

/// 1 if both say the same but for case, white space and a last full stop.
double reward_exact_match(std::string_view answer, std::string_view right);
/// F1 of the words in common, counted, without case and punctuation at their borders.
double reward_overlap(std::string_view answer, std::string_view right);
/// 1 if the pattern (ECMAScript) is found in the answer.
double reward_format(const std::string& answer, const std::string& pattern);
/// 1 for `words` words, falling linearly to 0 at none and at twice as many.
double reward_length(std::string_view answer, std::int64_t words);

}  // namespace llava
