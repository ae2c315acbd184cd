#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "config/watch_config.h"
#include "data/dataset.h"
#include "data/prepare.h"
#include "model/batch.h"
#include "model/llava_model.h"
#include "train/metrics.h"
#include "train/watch_state.h"

namespace llava {

/// Measures the model on a stage's `validation` data: the loss and the part of right tokens (both over the
/// labelled tokens, teacher forced), prepared as the stage's own samples are. Nothing that training depends
/// on changes, the random state included, so a run with validation has the bits of one without. Samples
/// that cannot be used are left out and named once.
class Validator {
 public:
  using MakeBatch = std::function<MultimodalBatch(const std::vector<const PreparedSample*>&)>;

  /// `training`: the stage's preparer, whose cache the validation may use. Error{kInput} without any
  /// records.
  Validator(const ValidationConfig& config, const SamplePreparer& training, std::int64_t stage_batch);

  /// std::nullopt when `stop` was set meanwhile.
  std::optional<EvalMetrics> measure(LlavaModel& model, const MakeBatch& make_batch,
                                     const std::atomic<bool>* stop);
  /// The first samples that can be used, for showing.
  std::vector<PreparedSample> samples_to_show() const;
  const ValidationConfig& config() const { return config_; }
  const Dataset& dataset() const { return *dataset_; }
  /// Whether a result is due after `stage_step` of `total` steps.
  bool due(std::int64_t stage_step, std::int64_t total) const;

 private:
  std::vector<PreparedSample> prepare(std::size_t begin, std::size_t end);

  ValidationConfig config_;
  std::int64_t batch_size_;
  std::unique_ptr<Dataset> dataset_;
  SamplePreparer preparer_;
  std::vector<std::size_t> indices_;
  bool bad_named_ = false;
};

/// Notes a result in `state`: the best so far (lower by more than min_delta), or one more without; sets
/// `stop` when patience is spent. True if it is the best.
bool note_result(const ValidationConfig& config, ValidationState& state, std::int64_t stage,
                 std::int64_t steps_done, double loss);

/// Sum of the cross-entropy, labelled tokens, and those whose label is the likeliest.
struct TokenScores {
  double loss = 0;
  std::int64_t tokens = 0, right = 0;
};
TokenScores score_tokens(LlavaModel& model, const MultimodalBatch& batch);

}  // namespace llava
