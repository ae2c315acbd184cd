#include "config/preference_config.h"

#include <algorithm>
#include <cmath>
#include <regex>

#include "config/stage_config.h"

namespace llava {

namespace {

void require(bool condition, const std::string& path, const std::string& rule) {
  if (!condition) fail(ErrorKind::kInput, "{}: {}", path, rule);
}

bool is_finite_and_not_negative(double x) { return std::isfinite(x) && x >= 0; }

void check_weights(const std::vector<double>& weights, std::size_t count, const std::string& path,
                   const char* of) {
  require(weights.empty() || weights.size() == count, path,
          fmt::format("{} weights for {} of {}", weights.size(), count, of));
  require(std::all_of(weights.begin(), weights.end(), [](double w) { return std::isfinite(w); }), path,
          "must be finite numbers");
}

bool has(const PreferenceConfig& c, PreferenceLoss loss) {
  return std::find(c.loss_type.begin(), c.loss_type.end(), loss) != c.loss_type.end();
}

void check_pairs(const PreferenceConfig& c, const std::string& path) {
  require(!c.loss_type.empty(), path + ".loss_type", "names no loss");
  check_weights(c.loss_weights, c.loss_type.size(), path + ".loss_weights", "loss_type");
  const bool smoothed = has(c, PreferenceLoss::kCdpo) || has(c, PreferenceLoss::kRobust);
  require(c.label_smoothing >= 0 && c.label_smoothing < 0.5, path + ".label_smoothing",
          "must be in [0, 0.5)");
  require(smoothed || c.label_smoothing == 0, path + ".label_smoothing",
          "is used by the losses cdpo and robust only; name one of them in loss_type");
  require(is_finite_and_not_negative(c.rpo_alpha), path + ".rpo_alpha", "must not be negative");
  require(c.rpo_alpha == 0 || !has(c, PreferenceLoss::kSft), path + ".rpo_alpha",
          "is the weight of the loss sft, which loss_type names already");
  require(c.desirable_weight == 1 && c.undesirable_weight == 1, path,
          "desirable_weight and undesirable_weight are for objective kto");
}

void check_singles(const PreferenceConfig& c, const StageConfig& stage, const std::string& stage_path) {
  const std::string path = stage_path + ".preference";
  const PreferenceConfig plain;
  require(c.loss_type == plain.loss_type && c.loss_weights.empty() && c.label_smoothing == 0 &&
              c.rpo_alpha == 0,
          path, "loss_type, loss_weights, label_smoothing and rpo_alpha are for objective dpo");
  require(
      is_finite_and_not_negative(c.desirable_weight) && is_finite_and_not_negative(c.undesirable_weight),
      path, "desirable_weight and undesirable_weight must not be negative");
  require(stage.batch_size > 1, stage_path + ".batch_size",
          "must be above 1 for kto: its KL estimate pairs each prompt with the answer of the row before");
  require(!c.precompute_ref_log_probs || stage.sampler == SamplerKind::kSequential,
          path + ".precompute_ref_log_probs",
          "needs sampler: sequential for kto, whose pairs depend on the order");
}

void check_grpo(const GrpoConfig& c, const std::string& path) {
  require(c.num_generations >= 2 && c.num_generations <= 4096, path + ".num_generations",
          "must be in [2, 4096]: an answer is compared with the others of its group");
  require(c.max_completion_length >= 1, path + ".max_completion_length", "must be above 0");
  require(c.temperature > 0 && c.temperature <= 100, path + ".temperature", "must be in (0, 100]");
  require(c.top_p > 0 && c.top_p <= 1, path + ".top_p", "must be in (0, 1]");
  require(c.min_p >= 0 && c.min_p <= 1, path + ".min_p", "must be in [0, 1]");
  require(c.top_k >= 0, path + ".top_k", "must not be negative");
  require(c.repetition_penalty > 0, path + ".repetition_penalty", "must be above 0");
  require(is_finite_and_not_negative(c.beta), path + ".beta", "must not be negative");
  require(c.epsilon > 0 && c.epsilon < 1, path + ".epsilon", "must be in (0, 1)");
  require(is_finite_and_not_negative(c.epsilon_high), path + ".epsilon_high", "must not be negative");
  require(!c.reward_funcs.empty(), path + ".reward_funcs", "names no reward");
  check_weights(c.reward_weights, c.reward_funcs.size(), path + ".reward_weights", "reward_funcs");
  const std::vector<std::string> known(std::begin(kRewardFunctions), std::end(kRewardFunctions));
  const auto wants = [&](const char* name) {
    return std::find(c.reward_funcs.begin(), c.reward_funcs.end(), name) != c.reward_funcs.end();
  };
  for (const std::string& name : c.reward_funcs)
    require(
        std::find(known.begin(), known.end(), name) != known.end(), path + ".reward_funcs",
        fmt::format("\"{}\" is not one of {}{}", name, fmt::join(known, ", "), did_you_mean(name, known)));
  require(wants("format") == !c.reward_regex.empty(), path + ".reward_regex",
          "belongs to the reward \"format\": give both or none");
  try {
    const std::regex compiled(c.reward_regex);
  } catch (const std::regex_error& e) {
    fail(ErrorKind::kInput, "{}.reward_regex: \"{}\" is not a regular expression: {}", path, c.reward_regex,
         e.what());
  }
  require(c.reward_length >= 1, path + ".reward_length", "must be above 0");
  require(wants("judge") == !c.judge_model.empty(), path + ".judge_model",
          "belongs to the reward \"judge\": give both or none");
}

}  // namespace

void check_preference(const StageConfig& stage, const std::string& path) {
  const bool pairs = stage.objective == Objective::kDpo, singles = stage.objective == Objective::kKto,
             groups = stage.objective == Objective::kGrpo;
  require(!stage.preference || pairs || singles, path + ".preference", "is for objective: dpo or kto");
  require(!stage.grpo || groups, path + ".grpo", "is for objective: grpo");
  if (!pairs && !singles && !groups) return;
  require(stage.turns == TurnMode::kConversation, path + ".turns",
          "independent turns are for objective: lm");
  require(stage.loss_normalisation == LossNormalisation::kToken, path + ".loss_normalisation",
          "micro-batch is for objective: lm");
  if (stage.lora)
    require(stage.lora->dropout == 0, path + ".lora.dropout",
            "must be 0: policy and reference are compared without noise");
  if (groups) {
    require(stage.grpo.has_value(), path + ".grpo", "is missing: it names the rewards");
    return check_grpo(*stage.grpo, path + ".grpo");
  }
  const PreferenceConfig preference = stage.preference.value_or(PreferenceConfig{});
  require(preference.beta > 0 && std::isfinite(preference.beta), path + ".preference.beta",
          "must be above 0");
  require(preference.ref_log_probs_path.empty() || preference.precompute_ref_log_probs,
          path + ".preference.ref_log_probs_path", "needs precompute_ref_log_probs: true");
  pairs ? check_pairs(preference, path + ".preference") : check_singles(preference, stage, path);
}

}  // namespace llava
