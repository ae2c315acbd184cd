#pragma once
#include <memory>
#include <string>
#include <vector>

#include "config/distributed_config.h"
#include "config/stage_config.h"
#include "dist/collectives.h"
#include "train/gradient_buckets.h"
#include "train/optimizer.h"
#include "train/sharded_layers.h"

namespace llava {

/// What the ranks tell each other before a step: sums over all of them.
struct StepShare {
  double terms = 0;          ///< of the objective
  double micro_batches = 0;  ///< of all ranks
  double samples = 0, tokens = 0, supervised_tokens = 0, images = 0, views = 0, bad_samples = 0;
  double attended_pairs = 0;
};

/// A stage that several processes train together: each works on its part of every step's samples, and this
/// makes of it the step that one process would have made (docs/distributed.md). The optimizer that it makes
/// has this rank's slices of the trained tensors, or, with ddp, the tensors themselves.
class ParallelStage {
 public:
  /// Sets requires_grad of `trained`. Error{kInput} for an update rule that needs whole matrices with a zero
  /// strategy, {kResource} if the ranks have different weights.
  ParallelStage(Collectives& group, LlavaModel& model, const std::vector<NamedParameter>& trained,
                const PatternNumbers& lr, const OptimConfig& optim, const DistributedConfig& config);
  ~ParallelStage();

  std::unique_ptr<Optimizer> take_optimizer() { return std::move(made_); }
  ShardStrategy strategy() const { return config_.strategy; }
  /// zero3's layers; null otherwise.
  ShardedLayers* layers() { return layers_.get(); }
  const ShardedLayers* layers() const { return layers_.get(); }

  /// Sums over ranks; remembers how many rounds (micro-batches) this step has on each rank.
  StepShare begin_step(const StepShare& own);
  /// How many rounds this rank makes; those after its own micro-batches are empty ones.
  std::int64_t rounds(std::int64_t own_micro_batches) const;
  /// Whether an empty round must run the model on something, so that all ranks gather the same layers.
  bool runs_empty_rounds() const { return layers_ != nullptr; }
  void begin_round(bool last, double factor);
  void end_round();
  /// After the last round: the norm of the summed gradients, the same on all ranks.
  double gradient_norm(const Optimizer& optimizer);
  /// After an update: every rank gets the other ranks' slices.
  void spread();
  /// `loss` summed over ranks; `stop` becomes true on all if it is on one.
  double end_step(double loss, bool& stop);
  /// Before anything else uses the model's weights again (next stage, final model).
  void finish();

 private:
  void check_same_weights(LlavaModel& model);
  std::vector<NamedParameter> own_slices(const std::vector<NamedParameter>& trained) const;

  Collectives& group_;
  DistributedConfig config_;
  std::vector<NamedParameter> replicated_;  ///< trained tensors that every rank has whole
  std::unique_ptr<ShardedLayers> layers_;
  std::unique_ptr<Optimizer> made_;
  std::unique_ptr<GradientBuckets> buckets_;
  Optimizer* optimizer_ = nullptr;
  std::int64_t most_micro_batches_ = 0;
};

/// Error{kUnsupported} for a stage that only one process can train, or not with this strategy.
void check_can_be_shared(const StageConfig& stage, ShardStrategy strategy);

}  // namespace llava
