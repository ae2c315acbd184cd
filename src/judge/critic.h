#pragma once
#include <optional>
#include <string>
#include <string_view>

/// LLaVA-Critic's prompts, and what a judge's free text means (specification 1.9).
namespace llava {

/// Which of two answers is better. The wording is the training data's, to the letter.
std::string pairwise_prompt(std::string_view question, std::string_view first, std::string_view second);
/// A score out of 100 for one answer; the wording, "answer answers" and the last space included, is the
/// training data's.
std::string pointwise_prompt(std::string_view question, std::string_view answer);

enum class Preference { kFirst, kSecond, kTie };
const char* to_string(Preference preference);  ///< "first", "second", "tie"

/// The verdict in a judge's words: "The first response is better", "Response B is worse", "[[A]]", "Two
/// responses are equally good", … The first such statement counts, since what follows are reasons. Nothing if
/// there is none.
std::optional<Preference> parse_preference(std::string_view text);

/// The score in a judge's words, scaled to 0…100: "Score: 85", "85/100", "8.5 out of 10", "a score of 70", or a
/// text that is a number. Nothing if there is none or it is out of range.
std::optional<double> parse_score(std::string_view text);

}  // namespace llava
