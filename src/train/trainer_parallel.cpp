// What is different where several processes train; with one, nothing here does anything.
#include <torch/torch.h>

#include <numeric>

#include "base/error.h"
#include "base/log.h"
#include "train/sharded_checkpoint.h"
#include "train/stage.h"

namespace llava {

void check_can_be_shared(const StageConfig& config, ShardStrategy strategy) {
  if (config.objective != Objective::kLm && config.objective != Objective::kAnswerEmbedding)
    throw Error(ErrorKind::kUnsupported,
                fmt::format("stage {}: objectives on whole answers train in one process only", config.name),
                "start it without torchrun (or with one process)");
  if (config.ema.ema_decay > 0 && strategy != ShardStrategy::kDdp)
    throw Error(ErrorKind::kUnsupported, fmt::format("stage {}: ema_decay needs whole weights", config.name),
                "use distributed.strategy: ddp");
  if (config.validation && config.validation->load_best_model_at_end && strategy == ShardStrategy::kZero3)
    throw Error(ErrorKind::kUnsupported,
                fmt::format("stage {}: load_best_model_at_end does not read zero3's checkpoints", config.name),
                "use distributed.strategy: zero2, or take the best checkpoint by hand");
}

void Trainer::wait_for_all(const char* what) {
  if (options_.group) options_.group->wait_for_all(what);
}

void Trainer::agree_on_start() {
  if (!options_.group) return;
  const auto rows = options_.group->exchange({static_cast<double>(state_.global_step)}, "start");
  for (const auto& row : rows)
    if (row != rows[0])
      throw Error(ErrorKind::kResource,
                  fmt::format("rank 0 would go on after step {}, rank {} after step {}", rows[0][0],
                              options_.group->rank(), state_.global_step),
                  "all machines must see the same output folder");
}

void Trainer::make_optimizer(Stage& stage) {
  const StageConfig& config = *stage.config;
  if (!options_.group) {
    stage.optimizer = std::make_unique<Optimizer>(stage.trained, config.lr, config.optim);
    return;
  }
  check_can_be_shared(config, config_.distributed.strategy);
  stage.parallel = std::make_unique<ParallelStage>(*options_.group, *model_, stage.trained, config.lr,
                                                   config.optim, config_.distributed);
  stage.optimizer = stage.parallel->take_optimizer();
  // the same weights everywhere, but not the same dropout
  at::manual_seed(config_.seed + 7919 * static_cast<std::uint64_t>(stage.index * options_.group->size() +
                                                                   options_.group->rank()));
}

bool Trainer::layers_are_cut(const Stage& stage) {
  return stage.parallel && stage.parallel->layers() != nullptr;
}

bool Trainer::must_stop(const Stage& stage) const {
  if (stage.parallel) return stage.stop_agreed;  // all ranks stop after the same step
  return options_.stop != nullptr && *options_.stop;
}

/// What the whole step holds, over all ranks; `metrics` then speaks of it too.
StepShare Trainer::share_step(Stage& stage, const LoadedStep& step, const std::vector<std::int64_t>& terms,
                              std::size_t micro_batches, StepMetrics& metrics) {
  StepShare share;
  share.terms = static_cast<double>(std::accumulate(terms.begin(), terms.end(), std::int64_t{0}));
  share.micro_batches = static_cast<double>(micro_batches);
  if (!stage.parallel) return share;
  share.samples = static_cast<double>(step.samples.size());
  share.bad_samples = static_cast<double>(step.bad.size());
  share.tokens = static_cast<double>(metrics.tokens);
  share.supervised_tokens = static_cast<double>(metrics.supervised_tokens);
  share.images = static_cast<double>(metrics.images);
  share.views = static_cast<double>(metrics.views);
  share.attended_pairs = metrics.attended_pairs;
  const StepShare own = share;
  share = stage.parallel->begin_step(own);
  metrics.tokens = static_cast<std::int64_t>(share.tokens);
  metrics.supervised_tokens = static_cast<std::int64_t>(share.supervised_tokens);
  metrics.images = static_cast<std::int64_t>(share.images);
  metrics.views = static_cast<std::int64_t>(share.views);
  metrics.attended_pairs = share.attended_pairs;
  metrics.samples = static_cast<std::int64_t>(share.samples);
  state_.samples_seen += static_cast<std::int64_t>(share.samples - own.samples);  // of the other ranks
  state_.bad_samples += static_cast<std::int64_t>(share.bad_samples - own.bad_samples);
  return share;
}

/// The gradient norm of the step; `loss` becomes the whole step's.
double Trainer::end_backward(Stage& stage, double& loss) {
  if (!stage.parallel) return stage.optimizer->gradient_norm();
  bool stop = options_.stop != nullptr && *options_.stop;
  loss = stage.parallel->end_step(loss, stop);
  stage.stop_agreed = stop;
  return stage.parallel->gradient_norm(*stage.optimizer);
}

std::vector<std::filesystem::path> Trainer::write_shards(const Stage* stage) {
  if (stage == nullptr || !stage->parallel) return {};
  const std::filesystem::path folder = std::filesystem::path(config_.output) / "tmp-ranks";
  if (is_main()) {
    std::error_code failure;
    std::filesystem::remove_all(folder, failure);
    std::filesystem::create_directories(folder, failure);
    if (failure) fail(ErrorKind::kResource, "cannot make {}: {}", folder.string(), failure.message());
  }
  options_.group->barrier("place of the checkpoint");
  const int own = options_.group->rank(), all = options_.group->size();
  write_rank_file(folder, own, all,
                  rank_tensors(*stage->parallel, *stage->optimizer, state_.touched, model_->device()));
  options_.group->wait_for_all("checkpoint");
  return rank_files(folder, all);
}

bool Trainer::resume_shards(Stage& stage) {
  if (!options_.group && ranks_of_checkpoint(resume_from_) == 0) return false;
  load_rank_files(resume_from_, *model_, stage.trained, *stage.optimizer, stage.parallel.get(),
                  static_cast<int>(rank()), static_cast<int>(world()));
  return true;
}

/// A batch whose loss is 0 and whose passes are like any other's: for a rank that has no samples left while
/// others have, where a pass gathers weights.
void Trainer::empty_pass() {
  const at::TensorOptions options = at::TensorOptions().dtype(at::kLong);
  MultimodalBatch batch;
  batch.ids = at::zeros({1, 2}, options);
  batch.positions = at::arange(2, options).unsqueeze(0);
  batch.lengths = at::full({1}, 2, options);
  const at::Tensor hidden = model_->decode(model_->embed(batch), batch);
  hidden.sum().mul(0.0).backward();
}

}  // namespace llava
