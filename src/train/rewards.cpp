#include "train/rewards.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <regex>
#include <vector>

namespace llava {

namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f'); }

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (!is_space(c))
      words.back() += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    else if (!words.back().empty())
      words.emplace_back();
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::map<std::string, int> counted_words(std::string_view text) {
  const auto is_mark = [](char c) { return std::ispunct(static_cast<unsigned char>(c)) != 0; };
  std::map<std::string, int> counts;
  for (const std::string& word : words_of(text)) {
    const auto begin = std::find_if_not(word.begin(), word.end(), is_mark);
    const auto end = std::find_if_not(word.rbegin(), std::make_reverse_iterator(begin), is_mark).base();
    if (begin != end) ++counts[std::string(begin, end)];
  }
  return counts;
}

}  // namespace

double reward_exact_match(std::string_view answer, std::string_view right) {
  const auto plain = [](std::string_view text) {
    std::vector<std::string> words = words_of(text);
    if (!words.empty() && words.back().size() > 1 && words.back().back() == '.') words.back().pop_back();
    return words;
  };
  return plain(answer) == plain(right) ? 1 : 0;
}

double reward_overlap(std::string_view answer, std::string_view right) {
  const auto ours = counted_words(answer), theirs = counted_words(right);
  int common = 0, num_ours = 0, num_theirs = 0;
  for (const auto& [word, count] : ours) {
    num_ours += count;
    const auto found = theirs.find(word);
    if (found != theirs.end()) common += std::min(count, found->second);
  }
  for (const auto& [word, count] : theirs) num_theirs += count;
  return common == 0 ? 0 : 2.0 * common / (num_ours + num_theirs);
}

double reward_format(const std::string& answer, const std::string& pattern) {
  return std::regex_search(answer, std::regex(pattern)) ? 1 : 0;
}

double reward_length(std::string_view answer, std::int64_t words) {
  const auto wanted = static_cast<double>(words);
  return 1 - std::min(1.0, std::abs(static_cast<double>(words_of(answer).size()) - wanted) / wanted);
}

}  // namespace llava
