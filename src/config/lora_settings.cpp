#include "config/lora_settings.h"

#include <cmath>
#include <regex>

#include "base/error.h"

namespace llava {

namespace {

constexpr double kLargestRank = 65536;

void check_lora_regex(const std::string& pattern, const std::string& path) {
  try {
    const std::regex compiled(pattern);
  } catch (const std::regex_error& e) {
    fail(ErrorKind::kInput, "{}: \"{}\" is not a regular expression: {}", path, pattern, e.what());
  }
}

}  // namespace

void check_lora(const LoraSettings& lora, const std::string& path) {
  if (lora.r <= 0 || static_cast<double>(lora.r) > kLargestRank)
    fail(ErrorKind::kInput, "{}.r: must be in [1, 65536]", path);
  if (!(lora.dropout >= 0 && lora.dropout < 1)) fail(ErrorKind::kInput, "{}.dropout: must be in [0, 1)", path);
  if (!std::isfinite(lora.lora_alpha)) fail(ErrorKind::kInput, "{}.lora_alpha: must be a number", path);
  check_lora_regex(lora.target, path + ".target");
  check_lora_regex(lora.tower_target, path + ".tower_target");
  for (const PatternNumbers* patterns : {&lora.rank_pattern, &lora.alpha_pattern})
    for (const auto& [pattern, number] : *patterns)
      if (pattern.empty())
        fail(ErrorKind::kInput, "{}: rank_pattern and alpha_pattern map module names to numbers", path);
  for (const auto& [pattern, rank] : lora.rank_pattern) {
    check_lora_regex(pattern, path + ".rank_pattern");
    if (!(rank >= 1 && rank <= kLargestRank && rank == std::floor(rank)))
      fail(ErrorKind::kInput, "{}.rank_pattern: {} is no rank in [1, 65536]", path, rank);
  }
  for (const auto& [pattern, alpha] : lora.alpha_pattern) check_lora_regex(pattern, path + ".alpha_pattern");
  for (const std::string& module : lora.modules_to_save)
    if (module.empty()) fail(ErrorKind::kInput, "{}.modules_to_save: a name is empty", path);
}

}  // namespace llava
