#include "judge/critic.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>
#include <regex>

namespace llava {

namespace {

constexpr std::size_t kMaxText = 1 << 16;  // of an answer that is searched; verdicts stand at its beginning or end

std::string lowered(std::string_view text) {
  std::string low(text.substr(0, kMaxText));
  std::transform(low.begin(), low.end(), low.begin(), [](unsigned char c) {
    return c == '\n' || c == '\t' || c == '*' || c == '_' ? ' ' : static_cast<char>(std::tolower(c));
  });
  return low;
}

struct Statement {
  std::regex pattern;
  enum class Kind { kBetter, kWorse, kTie } kind;
};

/// Group 1 names the answer. std::regex recurses on long matches, so every gap is short and bounded.
const std::vector<Statement>& statements() {
  using Kind = Statement::Kind;
  static const std::vector<Statement> all = [] {
    const std::string one = "(first|1st|second|2nd|a|b|1|2)";
    const std::string answer = "(?:response|answer|assistant|model|output|option)";
    const std::string named = "(?:the )?(?:" + one + " " + answer + "|" + answer + " \\(?" + one + "\\)?)";
    const auto flags = std::regex::ECMAScript | std::regex::optimize;
    std::vector<Statement> list;
    const auto add = [&](const std::string& pattern, Kind kind) { list.push_back({std::regex(pattern, flags), kind}); };
    add(named + "(?: is| was|'s| seems| appears| provides| gives| offers)? {0,3}(?:to be )?(?:the |a )?(?:slightly |clearly |much |significantly |overall |far |more )?(?:better|superior|preferred|preferable|stronger|best|winner)\\b", Kind::kBetter);
    add(named + " (?:wins|outperforms|is more (?:accurate|detailed|helpful|comprehensive))", Kind::kBetter);
    add("(?:better|best|preferred|superior) (?:one |response |answer |choice |option )?(?:is|:|would be) {0,2}" + named, Kind::kBetter);
    add("(?:prefer|choose|select|favou?r) " + named, Kind::kBetter);
    add("\\[\\[ ?([ab12]) ?\\]\\]", Kind::kBetter);
    add("\\b(?:verdict|winner|decision|choice|better) ?: ?(?:the )?" + one + "\\b", Kind::kBetter);
    add(named + "(?: is| was|'s| seems| appears) (?:slightly |clearly |much |significantly |far )?(?:worse|inferior|weaker)\\b", Kind::kWorse);
    add("\\bequally (?:good|bad|well|accurate|helpful|poor|strong|detailed|valid|correct)\\b()", Kind::kTie);
    add("\\b(?:both|two) (?:responses|answers) are (?:equal|comparable|the same|of (?:equal|similar) quality|tied)()", Kind::kTie);
    add("\\bneither (?:response|answer|of them) is better()", Kind::kTie);
    add("\\b(?:it is|it's|is) a tie\\b()", Kind::kTie);
    add("\\[\\[ ?c ?\\]\\]()", Kind::kTie);
    add("\\b(?:verdict|winner|decision) ?: ?tie\\b()", Kind::kTie);
    return list;
  }();
  return all;
}

bool names_first(const std::smatch& match) {
  for (std::size_t i = 1; i < match.size(); ++i) {
    if (!match[i].matched || match[i].length() == 0) continue;
    const std::string name = match[i].str();
    return name == "first" || name == "1st" || name == "a" || name == "1";
  }
  return false;
}

/// A number that is a score, at `at`: "85", "8.5/10", "85 out of 100".
std::optional<double> score_at(std::string_view text, std::size_t at) {
  double value = 0, scale = 100;
  const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  std::string_view rest = text.substr(static_cast<std::size_t>(end - text.data()));
  while (rest.starts_with(' ')) rest.remove_prefix(1);
  for (const std::string_view of : {"/", "out of"})
    if (rest.starts_with(of)) {
      rest.remove_prefix(of.size());
      while (rest.starts_with(' ')) rest.remove_prefix(1);
      double limit = 0;
      if (std::from_chars(rest.data(), rest.data() + rest.size(), limit).ec == std::errc() && limit > 0) scale = limit;
      break;
    }
  if (!(value >= 0) || value > scale) return std::nullopt;
  return value * 100 / scale;
}

std::size_t skip_words(std::string_view text, std::size_t at) {
  constexpr std::string_view kFillers[] = {" ", ":", "=", "is", "of", "a", "the", "given", "would be", "(", "[", "- "};
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view filler : kFillers)
      if (text.substr(at).starts_with(filler)) {
        at += filler.size();
        again = true;
      }
  }
  return at;
}

}  // namespace

std::string pairwise_prompt(std::string_view question, std::string_view first, std::string_view second) {
  return fmt::format(
      "Given an image and a corresponding question, please serve as an unbiased and fair judge to evaluate the quality of the "
      "answers provided by a Large Multimodal Model (LMM). Determine which answer is better and explain your reasoning with "
      "specific details. Your task is provided as follows:\nQuestion: [{}]\nThe first response: [{}]\nThe second response: "
      "[{}]\nASSISTANT:\n",
      question, first, second);
}

std::string pointwise_prompt(std::string_view question, std::string_view answer) {
  return fmt::format(
      "Given an image and a corresponding question, please serve as an unbiased and fair judge to evaluate the quality of "
      "answer answers provided by a Large Multimodal Model (LMM). Score the response out of 100 and explain your reasoning "
      "with specific details. Your task is provided as follows:\nQuestion: [{}]\nThe LMM response: [{}]\nASSISTANT:\n ",
      question, answer);
}

const char* to_string(Preference preference) {
  switch (preference) {
    case Preference::kFirst:
      return "first";
    case Preference::kSecond:
      return "second";
    case Preference::kTie:
      return "tie";
  }
  return "";
}

std::optional<Preference> parse_preference(std::string_view text) {
  const std::string low = lowered(text);
  std::optional<Preference> found;
  auto best = std::numeric_limits<std::ptrdiff_t>::max();
  for (const Statement& statement : statements()) {
    std::smatch match;
    if (!std::regex_search(low, match, statement.pattern) || match.position() >= best) continue;
    best = match.position();
    if (statement.kind == Statement::Kind::kTie) {
      found = Preference::kTie;
    } else {
      const bool first = names_first(match) == (statement.kind == Statement::Kind::kBetter);
      found = first ? Preference::kFirst : Preference::kSecond;
    }
  }
  return found;
}

std::optional<double> parse_score(std::string_view text) {
  const std::string low = lowered(text);
  for (const std::string_view word : {"score", "rating", "grade"})
    for (std::size_t at = low.find(word); at != std::string::npos; at = low.find(word, at + 1))
      if (const auto score = score_at(low, skip_words(low, at + word.size()))) return score;
  const std::size_t start = low.find_first_not_of(' ');
  if (start != std::string::npos)
    if (const auto score = score_at(low, start)) return score;
  for (const std::string_view mark : {"/100", "/ 100", " out of 100", "/10", "/ 10", " out of 10"}) {
    const std::size_t at = low.find(mark);
    if (at == std::string::npos || at == 0) continue;
    const std::size_t before = low.find_last_not_of("0123456789.", at - 1);
    if (const auto score = score_at(low, before == std::string::npos ? 0 : before + 1)) return score;
  }
  return std::nullopt;
}

}  // namespace llava
