#include "convert/target_names.h"

#include <span>
#include <string_view>

namespace llava {

namespace {

struct NameRule {
  std::string_view from, to;
};

constexpr NameRule kHfRules[] = {
    {"language_model.", "language_model.model."},
    {"lm_head.", "language_model.lm_head."},
    {"mm_projector.0.", "multi_modal_projector.linear_1."},
    {"mm_projector.2.", "multi_modal_projector.linear_2."},
    {"mm_projector.norm.", "multi_modal_projector.projector_layernorm."},
    {"vision_tower.", "vision_tower.vision_model."},
};
constexpr NameRule kTextRules[] = {{"language_model.", "model."}};
constexpr NameRule kOriginalRules[] = {
    {"language_model.", "model."},
    {"mm_projector.", "model.mm_projector."},
    {"image_newline", "model.image_newline"},
    {"vision_tower.", "model.vision_tower.vision_tower.vision_model."},
};
/// transformers since 4.52.
constexpr NameRule kHfModuleRules[] = {
    {"language_model.", "model.language_model."},
    {"mm_projector.0", "model.multi_modal_projector.linear_1"},
    {"mm_projector.2", "model.multi_modal_projector.linear_2"},
    {"mm_projector.norm", "model.multi_modal_projector.projector_layernorm"},
    {"vision_tower.", "model.vision_tower.vision_model."},
    {"image_newline", "model.image_newline"},
};

std::string renamed(const std::string& name, std::span<const NameRule> rules) {
  for (const NameRule& rule : rules)
    if (name.starts_with(rule.from)) return std::string(rule.to) + name.substr(rule.from.size());
  return name;
}

}  // namespace

std::string target_name(const std::string& canonical, TargetLayout target, bool text_only) {
  if (target == TargetLayout::kOriginal) return renamed(canonical, kOriginalRules);
  return text_only ? renamed(canonical, kTextRules) : renamed(canonical, kHfRules);
}

std::string module_name(const std::string& canonical, Layout base) {
  if (base == Layout::kHfLlava) return renamed(canonical, kHfModuleRules);
  if (base == Layout::kOriginalLlava) return renamed(canonical, kOriginalRules);
  return renamed(canonical, kTextRules);
}

}  // namespace llava
