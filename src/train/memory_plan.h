#pragma once
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "config/stage_config.h"
#include "model/llava_model.h"

/// How much memory a stage will take, from shapes alone.
namespace llava {

/// A model at a stage without its numbers: tensors tell their names and shapes only.
struct StageShape {
  ModelConfig model;
  std::vector<NamedParameter> all, trained;  ///< LoRA pairs are among both
  bool trains(const char* prefix) const;     ///< anything whose name starts so
};

/// What one process holds of a step at once.
struct MicroBatch {
  double tokens = 0;             ///< without padding
  double padded_tokens = 0;      ///< rows times the longest row
  double supervised_tokens = 0;  ///< that the loss is over
  double views = 0;              ///< that the tower sees
  double mask_elements = 0;      ///< of attention masks; 0: plain causal attention
};

/// Where and how a stage runs.
struct MemorySetup {
  bool cpu = true;
  std::int64_t processes = 1;
  ShardStrategy strategy = ShardStrategy::kDdp;
  QuantizationSettings quantization;
  bool several_micro_batches = false;  ///< gradients are summed over some
  bool cached_features = false;        ///< the tower does not run in steps
  bool copies_state = false;           ///< a checkpoint is written beside the training (host memory)
  double views_ahead = 0;              ///< views whose pixels the loader holds (host memory)
  double cached_bytes = 0;             ///< of the feature file that is read (host memory)
  double program_bytes = 0;            ///< resident before there is a model (host memory)
  std::set<std::string> mapped;        ///< weights that stay in their files
};

/// Bytes of one process by what they are for, each at its own highest; they are not all there at once, so
/// `peak` is less than their sum. On a CPU host memory counts, elsewhere the device's.
struct MemoryPlan {
  double weights = 0, gradients = 0, optimizer = 0, activations = 0, head = 0, overhead = 0;
  double peak = 0;
};
MemoryPlan plan_memory(const StageShape& shape, const StageConfig& stage, const MicroBatch& batch,
                       const MemorySetup& setup);

/// Bytes that the optimizer keeps for these tensors: states, and float32 masters where there are some.
double optimizer_bytes(const std::vector<NamedParameter>& trained, const OptimConfig& config);

/// Bytes that are kept between the forward and the backward pass, and what both need for a moment.
struct ActivationPlan {
  double kept = 0;       ///< over all blocks
  double moment = 0;     ///< while one block runs, forwards or backwards
  double tower_run = 0;  ///< while a frozen tower runs, before the decoder's begin
};
ActivationPlan plan_activations(const StageShape& shape, const StageConfig& stage, const MicroBatch& batch,
                                const MemorySetup& setup);

/// Bytes of one number in which activations are kept.
double activation_size(const StageConfig& stage);

}  // namespace llava
