#pragma once
#include <memory>
#include <string>
#include <vector>

#include "train/preference.h"
#include "train/reference_policy.h"
#include "train/step_objective.h"

namespace llava {

/// Group-relative policy optimisation with one update for each set of drawn answers: every prompt is
/// answered num_generations times by the model as it is, answers are rewarded, and tokens of answers above
/// their group's mean become likelier. Drawing depends on the run's seed and the step only, so a resumed
/// run draws the same.
class GrpoObjective final : public StepObjective {
 public:
  explicit GrpoObjective(StepContext context);
  double backward(const LoadedStep& step, StepMetrics& metrics) override;

 private:
  struct Answer;
  struct Totals;
  std::vector<Answer> draw(const LoadedStep& step, std::int64_t step_number) const;
  /// Advantages [answers]; notes the rewards.
  std::vector<double> judge(const LoadedStep& step, const std::vector<Answer>& answers,
                            StepMetrics& metrics) const;
  double reward(const std::string& name, const PreparedSample& sample, const Answer& answer) const;
  void backward(const std::vector<const Answer*>& answers, const std::vector<double>& advantages,
                Totals& totals);

  StepContext context_;
  GrpoConfig config_;
  std::unique_ptr<ReferencePolicy> reference_;  ///< null: beta 0
  bool trains_tower_ = false;
};

}  // namespace llava
