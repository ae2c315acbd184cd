#pragma once
#include <memory>
#include <vector>

#include "train/preference.h"
#include "train/reference_log_probs.h"
#include "train/reference_policy.h"
#include "train/step_objective.h"

namespace llava {

/// Kahneman-Tversky optimisation: a step's loss is the mean over its answers. The divergence is estimated
/// in each micro-batch from its prompts, each with the answer of the row before (the first with the
/// last's).
class KtoObjective final : public StepObjective {
 public:
  explicit KtoObjective(StepContext context);
  double backward(const LoadedStep& step, StepMetrics& metrics) override;

 private:
  struct Totals;
  /// A micro-batch: the samples and their prompts with the neighbours' answers.
  struct Batch {
    std::vector<const PreparedSample*> samples;
    std::vector<Prompt> mismatched;
    std::vector<std::int64_t> own_tokens, mismatched_tokens;  ///< of the answers
  };
  struct Reference {
    at::Tensor own, mismatched;  ///< [B] sums
  };
  void precompute();
  std::vector<Batch> cut(const LoadedStep& step) const;
  std::vector<CollateRow> rows_of(const Batch& batch, bool for_reference) const;
  Reference reference(const Batch& batch, const std::vector<CollateRow>& rows);
  Reference reference_pass(const Batch& batch, const std::vector<CollateRow>& rows);
  void backward(const Batch& batch, Totals& totals);

  StepContext context_;
  PreferenceConfig config_;
  ReferencePolicy reference_;
  std::unique_ptr<ReferenceLogProbs> known_;
  bool trains_tower_ = false;
};

/// The first prompt's question with the second's answer: tokens, labels and media of the question.
Prompt with_answer_of(const Prompt& question, const Prompt& answer);

}  // namespace llava
