#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/stage_config.h"
#include "train/memory_plan.h"
#include "train/metrics.h"

namespace llava {

/// What a stage's samples are like, for plan_run.
struct StageFacts {
  bool expected = false;
  std::int64_t samples = 0, samples_per_epoch = 0, steps = 0;
  StepMetrics whole;  ///< tokens, supervised tokens, images (views) and attended pairs of all steps
  std::int64_t tokens_first_step = 0, padded_tokens_first_step = 0;
  std::int64_t rows = 0;            ///< samples of the largest micro-batch
  std::vector<MicroBatch> batches;  ///< of one process: those seen, or one for the worst
  bool several_micro_batches = false;
  double views_ahead = 0;  ///< that the loader holds pixels of
  double images = 0;       ///< different ones in an epoch
  bool tiled = false;      ///< some image is seen in several views
};

/// From the stage's data where they are here (its first samples, prepared as for training), else from its
/// `expected`. `checkpoint`: none where the model is not here; then the data cannot be read either.
StageFacts stage_facts(const TrainConfig& run, const StageConfig& stage,
                       const std::optional<CheckpointInfo>& checkpoint, const ModelConfig& model,
                       std::int64_t processes);

}  // namespace llava
