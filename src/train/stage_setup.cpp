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
         current.use_rslora == wanted.use_rslora && current.use_dora == wanted.use_dora;
}

/// Whether a parameter is of a module that `modules_to_save` names: by its whole canonical name or by
/// components of it ("mm_projector", "lm_head", "layers.0.mlp"); llava-hf's name of the connector counts too.
bool is_in_module(const std::string& parameter, std::string module) {
  if (module == "multi_modal_projector") module = "mm_projector";
  return ("." + parameter).find("." + module + ".") != std::string::npos;
}

void check_modules_find(const std::vector<NamedParameter>& all, const std::vector<std::string>& modules) {
  for (const std::string& module : modules)
    if (std::none_of(all.begin(), all.end(), [&](const auto& p) { return is_in_module(p.name, module); }))
      fail(ErrorKind::kInput, "lora.modules_to_save: the model has no module \"{}\"", module);
}

}  // namespace

bool is_lora_name(const std::string& name) { return name.find(".lora_") != std::string::npos; }

TrainedCounts count_trained(const std::vector<NamedParameter>& trained) {
  TrainedCounts counts;
  for (const NamedParameter& p : trained) {
    const bool decoder = starts_with(p.name, "language_model.") || starts_with(p.name, "lm_head.");
    std::int64_t& part = is_lora_name(p.name)                   ? counts.lora
                         : starts_with(p.name, "vision_tower.") ? counts.tower
                         : decoder                              ? counts.decoder
                                                                : counts.connector;
    part += p.tensor.numel();
  }
  return counts;
}

bool trains_tower(const std::vector<NamedParameter>& trained) {
  return std::any_of(trained.begin(), trained.end(),
                     [](const NamedParameter& p) { return p.name.starts_with("vision_tower."); });
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
  const std::vector<std::string> whole = stage.lora ? stage.lora->modules_to_save : std::vector<std::string>{};
  check_modules_find(all, whole);
  for (NamedParameter p : all) {
    p.tensor.requires_grad_(false);
    const bool named = std::any_of(patterns.begin(), patterns.end(),
                                   [&](const auto& r) { return std::regex_search(p.name, r); }) ||
                       (!is_lora_name(p.name) && std::any_of(whole.begin(), whole.end(), [&](const auto& m) {
                         return is_in_module(p.name, m);
                       }));
    if (!named && !(stage.lora && is_lora_name(p.name))) continue;
    if (!p.tensor.is_floating_point())
      throw Error(ErrorKind::kInput, fmt::format("{} is packed in 4 bits and cannot train", p.name),
                  "train it through `lora`, or name its module in quantization.skip_modules");
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
  config.use_dora = wanted->use_dora;
  config.init = wanted->init_lora_weights;
  config.float32_pairs = wanted->autocast_adapter_dtype;
  config.rank_pattern = wanted->rank_pattern;
  config.alpha_pattern = wanted->alpha_pattern;
  config.seed = seed;
  model.add_lora(config);
  return wanted;
}

}  // namespace llava
