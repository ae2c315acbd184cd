#pragma once
#include <string>

#include "checkpoint/checkpoint.h"

namespace llava {

/// Whose names a written model has.
enum class TargetLayout {
  kSame,      ///< the base's own
  kHf,        ///< llava-hf's on the hub, which every transformers reads; a text model's own
  kOriginal,  ///< github.com/haotian-liu/LLaVA's
};

/// A canonical name in a layout's weight files (not kSame). `text_only`: a model without a tower.
std::string target_name(const std::string& canonical, TargetLayout target, bool text_only);

/// A canonical module or parameter name as the running model calls it, behind which PEFT puts its own: that of
/// transformers since 4.52, a text model's, or the original LLaVA's, as the base's layout is.
std::string module_name(const std::string& canonical, Layout base);

}  // namespace llava
