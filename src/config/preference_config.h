#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/fields.h"

/// Settings of the objectives dpo, kto and grpo. Keys and defaults are TRL's; where TRL's name is ambiguous
/// the docs (training.md, Preference) say which formula is meant.
namespace llava {

enum class PreferenceLoss { kSigmoid, kCdpo, kRobust, kIpo, kHinge, kSft };
enum class GrpoLoss { kGrpo, kDapo, kDrGrpo };
enum class RewardScale { kGroup, kBatch, kNone };

template <>
struct EnumTable<PreferenceLoss> {
  static constexpr std::pair<const char*, PreferenceLoss> names[] = {
      {"sigmoid", PreferenceLoss::kSigmoid}, {"cdpo", PreferenceLoss::kCdpo},
      {"robust", PreferenceLoss::kRobust},   {"ipo", PreferenceLoss::kIpo},
      {"hinge", PreferenceLoss::kHinge},     {"sft", PreferenceLoss::kSft}};
};
template <>
struct EnumTable<GrpoLoss> {
  static constexpr std::pair<const char*, GrpoLoss> names[] = {
      {"grpo", GrpoLoss::kGrpo}, {"dapo", GrpoLoss::kDapo}, {"dr_grpo", GrpoLoss::kDrGrpo}};
};
template <>
struct EnumTable<RewardScale> {
  static constexpr std::pair<const char*, RewardScale> names[] = {
      {"group", RewardScale::kGroup}, {"batch", RewardScale::kBatch}, {"none", RewardScale::kNone}};
};

/// Of objectives dpo and kto. loss_type … rpo_alpha are DPO's, the two weights KTO's.
struct PreferenceConfig {
  double beta = 0.1;  ///< strength of the tie to the reference
  std::vector<PreferenceLoss> loss_type = {PreferenceLoss::kSigmoid};
  std::vector<double> loss_weights;  ///< one for each loss_type; empty: 1 each
  double label_smoothing = 0.0;      ///< cdpo and robust: how often a pair is the wrong way round
  double rpo_alpha = 0.0;            ///< weight of the cross-entropy of the chosen answers, added
  double desirable_weight = 1.0;
  double undesirable_weight = 1.0;
  bool precompute_ref_log_probs = false;  ///< the reference sees every sample once, before the first step
  std::string ref_log_probs_path;         ///< where they are kept; empty: in the run's folder
};

/// Of objective grpo.
struct GrpoConfig {
  std::int64_t num_generations = 8;  ///< answers for each prompt: a group
  std::int64_t max_completion_length = 256;
  double temperature = 1.0;
  double top_p = 1.0;
  std::int64_t top_k = 0;  ///< 0: off
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double beta = 0.0;                   ///< weight of the distance to the reference; 0: no reference pass
  bool use_bias_correction_kl = true;  ///< the distance times the ratio: its gradient is then unbiased
  double epsilon = 0.2;
  double epsilon_high = 0.0;  ///< 0: as epsilon
  GrpoLoss loss_type = GrpoLoss::kDapo;
  RewardScale scale_rewards = RewardScale::kGroup;
  bool mask_truncated_completions = false;  ///< answers without an end do not count
  std::vector<std::string> reward_funcs;    ///< exact_match, overlap, format, length, judge
  std::vector<double> reward_weights;       ///< one for each; empty: 1 each
  std::string reward_regex;                 ///< of `format`: searched in the answer
  std::int64_t reward_length = 20;          ///< of `length`: words an answer should have
  std::string judge_model;                  ///< of `judge`: a critic's folder or name
};

template <class V>
void visit_fields(V& v, PreferenceConfig& c) {
  v("beta", c.beta), v("loss_type", c.loss_type), v("loss_weights", c.loss_weights);
  v("label_smoothing", c.label_smoothing), v("rpo_alpha", c.rpo_alpha);
  v("desirable_weight", c.desirable_weight), v("undesirable_weight", c.undesirable_weight);
  v("precompute_ref_log_probs", c.precompute_ref_log_probs), v("ref_log_probs_path", c.ref_log_probs_path);
}
template <class V>
void visit_fields(V& v, GrpoConfig& c) {
  v("num_generations", c.num_generations), v("max_completion_length", c.max_completion_length);
  v("temperature", c.temperature), v("top_p", c.top_p), v("top_k", c.top_k), v("min_p", c.min_p);
  v("repetition_penalty", c.repetition_penalty), v("beta", c.beta);
  v("use_bias_correction_kl", c.use_bias_correction_kl), v("epsilon", c.epsilon);
  v("epsilon_high", c.epsilon_high), v("loss_type", c.loss_type), v("scale_rewards", c.scale_rewards);
  v("mask_truncated_completions", c.mask_truncated_completions), v("reward_funcs", c.reward_funcs);
  v("reward_weights", c.reward_weights), v("reward_regex", c.reward_regex);
  v("reward_length", c.reward_length), v("judge_model", c.judge_model);
}

/// Names of `reward_funcs`.
inline constexpr const char* kRewardFunctions[] = {"exact_match", "overlap", "format", "length", "judge"};

struct StageConfig;
/// Error{kInput} naming the key where the objective and its settings do not fit: a `preference` or `grpo`
/// of another objective, weights that differ in number, ranges, what a preference run cannot be combined
/// with.
void check_preference(const StageConfig& stage, const std::string& path);

}  // namespace llava
