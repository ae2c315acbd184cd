#pragma once
#include <memory>
#include <vector>

#include "train/preference.h"
#include "train/reference_log_probs.h"
#include "train/reference_policy.h"
#include "train/step_objective.h"

namespace llava {

/// Direct preference optimisation: a step's loss is the mean over its pairs of the weighted sum of
/// loss_type, plus the chosen answers' cross-entropy (a mean over their tokens) for sft and rpo_alpha.
class DpoObjective final : public StepObjective {
 public:
  explicit DpoObjective(StepContext context);
  double backward(const LoadedStep& step, StepMetrics& metrics) override;

 private:
  struct Totals;
  using Pairs = std::vector<const PreparedSample*>;
  void precompute();
  std::vector<Pairs> cut(const LoadedStep& step) const;
  /// Rows of the chosen answers, then of the rejected ones, over the same vision features.
  std::vector<CollateRow> rows_of(const Pairs& pairs, bool for_reference) const;
  /// [2B] sums, chosen first.
  at::Tensor reference(const Pairs& pairs, const std::vector<CollateRow>& rows);
  at::Tensor reference_pass(const Pairs& pairs, const std::vector<CollateRow>& rows);
  at::Tensor loss(const PairLogProbs& pairs, Totals& totals) const;

  StepContext context_;
  PreferenceConfig config_;
  ReferencePolicy reference_;
  std::unique_ptr<ReferenceLogProbs> known_;  ///< null: the reference runs in every step
  bool trains_tower_ = false;
};

/// Whether one of the parameters is the tower's.
bool trains_tower(const std::vector<NamedParameter>& trained);
/// <run>/reference-<stage>.safetensors: the stage's first weights.
std::filesystem::path reference_file(const StepContext& context);
/// The stage's stored reference log-probabilities, opened with the key of its data and `reference`.
std::unique_ptr<ReferenceLogProbs> open_log_probs(const StepContext& context, const PreferenceConfig& config,
                                                  ReferencePolicy& reference);

}  // namespace llava
