#pragma once
#include <functional>
#include <memory>
#include <optional>
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
  /// What a micro-batch's passes take: a row a pair, or a row an answer.
  struct Batch {
    std::vector<Prompt> joined;
    std::vector<CollateRow> rows;
  };
  void precompute();
  std::vector<Pairs> cut(const LoadedStep& step) const;
  /// Both of a pair's answers share their vision features, and where the model allows it the whole prompt.
  Batch make_batch(const Pairs& pairs, bool for_reference) const;
  /// [2,B] sums of the chosen and of the rejected answers.
  at::Tensor log_probs(const Pairs& pairs, const Batch& batch) const;
  at::Tensor reference(const Pairs& pairs, const Batch& batch);
  at::Tensor reference_pass(const Pairs& pairs, const Batch& batch);
  at::Tensor loss(const PairLogProbs& pairs, Totals& totals) const;

  StepContext context_;
  PreferenceConfig config_;
  ReferencePolicy reference_;
  std::unique_ptr<ReferenceLogProbs> known_;  ///< null: the reference runs in every step
  bool trains_tower_ = false;
};

/// One row for both answers: the prompt but its last token, then that token and the chosen answer, then the
/// token and the rejected one, as two branches (Prompt::branch); positions are those of the two prompts.
/// Nothing where the prompts do not begin alike up to their media's end.
std::optional<Prompt> join_pair(const Prompt& chosen, const Prompt& rejected);
/// <run>/reference-<stage>.safetensors: the stage's first weights.
std::filesystem::path reference_file(const StepContext& context);
/// The stage's reference log-probabilities, under the key of its data and `reference`: those of its file, else `fill`
/// is called with each step of an epoch, sets the samples', and the file is written.
std::unique_ptr<ReferenceLogProbs> precompute_log_probs(
    const StepContext& context, const PreferenceConfig& config, ReferencePolicy& reference,
    const std::function<void(const LoadedStep&, ReferenceLogProbs&)>& fill);

}  // namespace llava
