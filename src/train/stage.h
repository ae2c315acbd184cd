#pragma once
#include <memory>

#include "train/answer_embeddings.h"
#include "train/parallel_stage.h"
#include "train/trainer.h"
#include "train/validation.h"
#include "train/weight_averages.h"

namespace llava {

/// How a stage's samples become ids, labels and pixels. Error{kInput} for a model that lacks a tokenizer, a
/// template or an image policy.
SamplePreparer make_preparer(const CheckpointInfo& checkpoint, const TrainConfig& run,
                             const StageConfig& config, const Dataset& dataset);

/// A stage that is set up: its data, what trains, and the optimizer's state.
struct Trainer::Stage {
  std::int64_t index = 0;
  const StageConfig* config = nullptr;
  std::unique_ptr<Dataset> dataset;
  std::unique_ptr<SampleOrder> order;
  std::int64_t total_steps = 0;
  SamplePreparer preparer;
  std::vector<NamedParameter> trained;
  std::unique_ptr<ParallelStage> parallel;    ///< null: one process
  std::unique_ptr<Optimizer> optimizer;       ///< of `parallel`: over this rank's slices
  bool stop_agreed = false;                   ///< of `parallel`: some rank was asked to stop
  std::unique_ptr<WeightAverages> averages;   ///< null: none are kept
  std::unique_ptr<Validator> validator;       ///< null: nothing is measured
  std::unique_ptr<AnswerEmbeddings> answers;  ///< for the objective that needs them
  std::unique_ptr<StepObjective> step_objective;  ///< of objectives on whole answers; else null
  std::unique_ptr<FeatureCache> cache;        ///< null: pixels go through the tower every step

  std::vector<NamedParameter> trained_base() const;  ///< without the LoRA pairs
  /// Whether the optimizer has a part of the tensors only.
  bool is_sharded() const { return parallel && parallel->strategy() != ShardStrategy::kDdp; }
};

}  // namespace llava
