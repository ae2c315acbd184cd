#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace llava {

/// Which layers get LoRA pairs, and of what kind.
struct LoraConfig {
  std::int64_t r = 16;
  double lora_alpha = 32;
  double dropout = 0.0;
  std::string target;                ///< regular expression on canonical module names, searched
  std::vector<std::string> modules;  ///< exact module names instead of `target` (a saved adapter)
  bool use_rslora = false;
  std::uint64_t seed = 0;
};

}  // namespace llava
