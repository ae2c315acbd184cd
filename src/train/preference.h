#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/preference_config.h"

/// The losses of preference optimisation as functions of log-probabilities; any floating type, all
/// differentiable in the policy's.   Legend: B pairs or answers, N answer tokens of all answers, G group
namespace llava {

/// Summed log-probabilities [B] of the answers of B pairs, and what some losses want besides.
struct PairLogProbs {
  at::Tensor chosen, rejected, ref_chosen, ref_rejected;
  at::Tensor chosen_tokens, rejected_tokens;  ///< [B] how many tokens were summed (ipo)
};

/// One DPO loss of each pair, [B]. With d = (chosen - ref_chosen) - (rejected - ref_rejected), s = log
/// sigmoid and label smoothing e:
///  sigmoid  -s(beta d)                                    Rafailov et al. 2023
///  cdpo     -(1 - e) s(beta d) - e s(-beta d)             conservative DPO (Mitchell 2023)
///  robust   (-(1 - e) s(beta d) + e s(-beta d))/(1 - 2e)  Chowdhury et al. 2024; TRL's `robust`
///  ipo      (d' - 1/(2 beta))^2, d' of the answers' means a token   Azar et al. 2023; as TRL
///  hinge    max(0, 1 - beta d)                            SLiC
/// kSft is no loss of pairs: Error{kInternal}.
at::Tensor dpo_losses(PreferenceLoss loss, const PairLogProbs& pairs, double beta, double label_smoothing);

/// KTO's loss of each answer, [B]: desirable_weight (1 - sigmoid(beta (r - kl))) where `desirable` [B]
/// bool, else undesirable_weight (1 - sigmoid(beta (kl - r))), with r = policy - reference and `kl` a
/// number without gradient (kto_kl).   Ethayarajh et al. 2024
at::Tensor kto_losses(const at::Tensor& policy, const at::Tensor& reference, const at::Tensor& desirable,
                      double kl, const PreferenceConfig& config);
/// KTO's estimate of the divergence: the mean log-ratio of mismatched prompts and answers, not below 0.
double kto_kl(const at::Tensor& policy, const at::Tensor& reference);

/// Advantages [B] of answers that come in groups of `group` rows with equal prompts: reward minus the
/// group's mean, over the standard deviation (unbiased) + 1e-4 of the group, of the batch, or not divided.
at::Tensor group_advantages(const at::Tensor& rewards, std::int64_t group, RewardScale scale);

/// GRPO's loss of each token, [N]: -min(q A, clip(q, 1 - low, 1 + high) A) + beta (e^t - t - 1) q
/// with q = exp(policy - old), t = reference - policy; the last q only with use_bias_correction_kl.
/// `reference` may be undefined where beta is 0.
struct GrpoTerms {
  at::Tensor policy, old, reference;  ///< [N]
  at::Tensor advantages;              ///< [N]: of the token's answer
};
at::Tensor grpo_token_losses(const GrpoTerms& terms, const GrpoConfig& config);

/// Each token's part in the step's loss, so that loss = sum of losses * weights. grpo: 1/(answers * tokens
/// of its answer); dapo: 1/(tokens of the step); dr_grpo: 1/(answers * max_completion_length).
double grpo_token_weight(const GrpoConfig& config, std::int64_t answer_tokens, std::int64_t step_answers,
                         std::int64_t step_tokens);

}  // namespace llava
