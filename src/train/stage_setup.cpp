#include "train/stage_setup.h"

#include <torch/torch.h>

#include <algorithm>
#include <regex>

#include "base/error.h"

namespace llava {

namespace {

constexpr const char* kLoraA = ".lora_A.weight";

bool starts_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

void check_patterns_find(const std::vector<NamedParameter>& all, const std::vector<std::string>& patterns) {
  std::vector<std::string> names;
  for (const NamedParameter& p : all) names.push_back(p.name);
  for (const std::string& pattern : patterns) {
    const std::regex regex(pattern);
    const bool found = std::any_of(names.begin(), names.end(),
                                   [&](const std::string& n) { return std::regex_search(n, regex); });
    if (!found)
      fail(ErrorKind::kInput, "train: \"{}\" is found in no parameter name{}", pattern,
           did_you_mean(pattern, names));
  }
}

/// A base model's own adapter names no targets: it is trained on if its sizes are the wanted ones.
bool goes_on(const LoraSettings& current, const LoraSettings& wanted) {
  return current.target.empty() && current.r == wanted.r && current.lora_alpha == wanted.lora_alpha &&
         current.use_rslora == wanted.use_rslora;
}

}  // namespace

bool is_lora_name(const std::string& name) { return name.find(".lora_") != std::string::npos; }

TrainedCounts count_trained(const std::vector<NamedParameter>& trained) {
  TrainedCounts counts;
  for (const NamedParameter& p : trained) {
    std::int64_t& part = is_lora_name(p.name)                   ? counts.lora
                         : starts_with(p.name, "vision_tower.") ? counts.tower
                         : starts_with(p.name, "mm_projector.") ? counts.connector
                                                                : counts.decoder;
    part += p.tensor.numel();
  }
  return counts;
}

std::string lora_pattern(const LoraSettings& lora) {
  std::vector<std::string> parts;
  if (!lora.target.empty()) parts.push_back(fmt::format("^(?=language_model\\.).*(?:{})", lora.target));
  if (!lora.tower_target.empty())
    parts.push_back(fmt::format("^(?=vision_tower\\.).*(?:{})", lora.tower_target));
  return fmt::format("{}", fmt::join(parts, "|"));
}

std::vector<NamedParameter> select_trained(LlavaModel& model, const StageConfig& stage) {
  std::vector<NamedParameter> trained;
  std::vector<std::regex> patterns(stage.train.begin(), stage.train.end());
  const std::vector<NamedParameter> all = model.parameters();
  check_patterns_find(all, stage.train);
  for (NamedParameter p : all) {
    p.tensor.requires_grad_(false);
    const bool named = std::any_of(patterns.begin(), patterns.end(),
                                   [&](const auto& r) { return std::regex_search(p.name, r); });
    if (!named && !(stage.lora && is_lora_name(p.name))) continue;
    make_writable(p.tensor);
    trained.push_back(std::move(p));
  }
  return trained;
}

std::optional<LoraSettings> apply_lora(LlavaModel& model, const std::optional<LoraSettings>& current,
                                       const std::optional<LoraSettings>& wanted, std::uint64_t seed,
                                       std::set<std::string>& touched) {
  if (current && !wanted) return current;  // frozen pairs stay in the sum
  if (current == wanted || (current && goes_on(*current, *wanted))) return wanted;
  if (current) {
    for (const NamedParameter& p : model.parameters())
      if (const auto at = p.name.find(kLoraA); at != std::string::npos)
        touched.insert(p.name.substr(0, at) + ".weight");
    model.merge_lora();
  }
  LoraConfig config;
  config.r = wanted->r;
  config.lora_alpha = wanted->lora_alpha;
  config.dropout = wanted->dropout;
  config.target = lora_pattern(*wanted);
  config.use_rslora = wanted->use_rslora;
  config.seed = seed;
  model.add_lora(config);
  return wanted;
}

}  // namespace llava
