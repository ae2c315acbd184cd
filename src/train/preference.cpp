#include "train/preference.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"

namespace llava {

at::Tensor dpo_losses(PreferenceLoss loss, const PairLogProbs& p, double beta, double label_smoothing) {
  const at::Tensor chosen = p.chosen - p.ref_chosen, rejected = p.rejected - p.ref_rejected;
  const at::Tensor logits = beta * (chosen - rejected);
  switch (loss) {
    case PreferenceLoss::kSigmoid:
      return -at::log_sigmoid(logits);
    case PreferenceLoss::kCdpo:
      return -(1 - label_smoothing) * at::log_sigmoid(logits) - label_smoothing * at::log_sigmoid(-logits);
    case PreferenceLoss::kRobust:
      return (label_smoothing * at::log_sigmoid(-logits) -
              (1 - label_smoothing) * at::log_sigmoid(logits)) /
             (1 - 2 * label_smoothing);
    case PreferenceLoss::kIpo: {
      LLAVA_ASSERT(p.chosen_tokens.defined() && p.rejected_tokens.defined(),
                   "ipo needs the answers' lengths");
      const at::Tensor margin =
          chosen / p.chosen_tokens.clamp_min(1) - rejected / p.rejected_tokens.clamp_min(1);
      return (margin - 1 / (2 * beta)).square();
    }
    case PreferenceLoss::kHinge:
      return at::relu(1 - logits);
    case PreferenceLoss::kSft:
      break;
  }
  LLAVA_ASSERT(false, "sft is a loss of tokens, not of pairs");
  return {};
}

at::Tensor kto_losses(const at::Tensor& policy, const at::Tensor& reference, const at::Tensor& desirable,
                      double kl, const PreferenceConfig& config) {
  const at::Tensor ratio = policy - reference;
  return at::where(desirable, config.desirable_weight * (1 - at::sigmoid(config.beta * (ratio - kl))),
                   config.undesirable_weight * (1 - at::sigmoid(config.beta * (kl - ratio))));
}

double kto_kl(const at::Tensor& policy, const at::Tensor& reference) {
  return std::max(0.0, (policy.detach() - reference).mean().item<double>());
}

at::Tensor group_advantages(const at::Tensor& rewards, std::int64_t group, RewardScale scale) {
  LLAVA_ASSERT(group > 1 && rewards.dim() == 1 && rewards.size(0) % group == 0, "whole groups of rewards");
  const at::Tensor grouped = rewards.view({-1, group});
  const at::Tensor centred = grouped - grouped.mean(1, true);
  switch (scale) {
    case RewardScale::kGroup:
      return (centred / (grouped.std(1, true, true) + 1e-4)).flatten();
    case RewardScale::kBatch:
      return (centred / (rewards.std(0, true, true) + 1e-4)).flatten();
    case RewardScale::kNone:
      break;
  }
  return centred.flatten();
}

at::Tensor grpo_token_losses(const GrpoTerms& t, const GrpoConfig& config) {
  const double high = config.epsilon_high > 0 ? config.epsilon_high : config.epsilon;
  const at::Tensor ratio = at::exp(t.policy - t.old);
  const at::Tensor clipped = at::clamp(ratio, 1 - config.epsilon, 1 + high);
  at::Tensor losses = -at::minimum(ratio * t.advantages, clipped * t.advantages);
  if (config.beta == 0) return losses;
  LLAVA_ASSERT(t.reference.defined(), "a beta above 0 needs the reference");
  const at::Tensor gap = t.reference - t.policy;
  const at::Tensor distance = at::exp(gap) - gap - 1;
  return losses + config.beta * (config.use_bias_correction_kl ? distance * ratio : distance);
}

double grpo_token_weight(const GrpoConfig& config, std::int64_t answer_tokens, std::int64_t step_answers,
                         std::int64_t step_tokens) {
  const auto answers = static_cast<double>(std::max<std::int64_t>(step_answers, 1));
  switch (config.loss_type) {
    case GrpoLoss::kGrpo:
      return 1 / (answers * static_cast<double>(std::max<std::int64_t>(answer_tokens, 1)));
    case GrpoLoss::kDapo:
      return 1 / static_cast<double>(std::max<std::int64_t>(step_tokens, 1));
    case GrpoLoss::kDrGrpo:
      return 1 / (answers * static_cast<double>(config.max_completion_length));
  }
  return 0;
}

}  // namespace llava
