#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "config/lora_settings.h"

namespace llava {

/// A layer of a saved adapter, with its own rank.
struct LoraModule {
  std::string name;  ///< canonical module name
  std::int64_t r = 0;
  double lora_alpha = 0;
};

/// Which layers get LoRA pairs, and of what kind.
struct LoraConfig {
  std::int64_t r = 16;
  double lora_alpha = 32;
  double dropout = 0.0;
  std::string target;               ///< regular expression on canonical module names, searched
  std::vector<LoraModule> modules;  ///< exact layers instead of `target` (a saved adapter)
  bool use_rslora = false;
  bool use_dora = false;
  LoraInit init = LoraInit::kKaiming;
  bool float32_pairs = true;  ///< pairs above a 16-bit base in float32, as PEFT keeps them
  /// Ranks and alphas of single modules: the first pattern that a module's name, or its end behind a dot,
  /// matches (PEFT's rank_pattern and alpha_pattern).
  PatternNumbers rank_pattern, alpha_pattern;
  std::uint64_t seed = 0;
};

}  // namespace llava
