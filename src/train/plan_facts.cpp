#include "train/plan_facts.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/path_pattern.h"
#include "data/loader.h"
#include "train/objective.h"
#include "train/preference.h"
#include "train/stage.h"

namespace llava {

namespace {

constexpr std::int64_t kSamplesSeen = 256;
constexpr double kStepsAhead = 3;  ///< of the loader: the one in use and two prepared ones
constexpr double kLongestRow = 2;  ///< a long row over the mean, where only the mean is known

bool data_are_here(const StageConfig& stage) {
  const auto here = [](const DataSourceConfig& source) { return path_exists(source.path); };
  if (std::none_of(stage.data.begin(), stage.data.end(), here)) return false;
  return std::all_of(stage.data.begin(), stage.data.end(),
                     [&](const DataSourceConfig& source) { return source.optional || here(source); });
}

/// Tokens of a sample with the answers that the objective draws or compares.
std::int64_t length_of(const PreparedSample& sample, const StageConfig& stage) {
  const auto own = static_cast<std::int64_t>(sample.prompt.ids.size());
  if (stage.objective == Objective::kDpo) return own + answer_tokens(sample.rejected);
  if (stage.objective != Objective::kGrpo) return own;
  const GrpoConfig grpo = stage.grpo.value_or(GrpoConfig{});
  return grpo.num_generations * (own + grpo.max_completion_length);
}

std::int64_t supervised_of(const PreparedSample& sample, const StageConfig& stage) {
  const std::int64_t own = count_terms(sample.prompt.labels, true, Objective::kLm);
  if (stage.objective == Objective::kDpo) return own + answer_tokens(sample.rejected);
  if (stage.objective != Objective::kGrpo) return own;
  const GrpoConfig grpo = stage.grpo.value_or(GrpoConfig{});
  return grpo.num_generations * grpo.max_completion_length;
}

/// Adds what one process holds of a step, micro-batch by micro-batch.
void add_step(const LoadedStep& step, const StageConfig& stage, StageFacts& facts) {
  std::vector<std::size_t> lengths;
  double views = 0;
  for (const PreparedSample& sample : step.samples) {
    lengths.push_back(static_cast<std::size_t>(length_of(sample, stage)));
    const std::int64_t own = sample.num_views();
    views += static_cast<double>(own);
    facts.tiled |= own > static_cast<std::int64_t>(sample.media.size());
    facts.images += static_cast<double>(sample.media.size());
    facts.whole.tokens += static_cast<std::int64_t>(lengths.back());
    facts.whole.attended_pairs += std::pow(static_cast<double>(lengths.back()), 2);
    facts.whole.supervised_tokens += supervised_of(sample, stage);
    facts.whole.views += own;
  }
  facts.views_ahead = std::max(facts.views_ahead, kStepsAhead * views);
  const auto cut = micro_batches(lengths, stage);
  facts.several_micro_batches |= cut.size() > 1;
  const bool branches = stage.turns == TurnMode::kIndependent || stage.objective == Objective::kDpo;
  for (const auto& rows : cut) {
    MicroBatch batch;
    double longest = 0;
    for (const std::size_t row : rows) {
      batch.tokens += static_cast<double>(lengths[row]);
      batch.supervised_tokens += static_cast<double>(supervised_of(step.samples[row], stage));
      batch.views += static_cast<double>(step.samples[row].num_views());
      longest = std::max(longest, static_cast<double>(lengths[row]));
    }
    const auto count = static_cast<double>(rows.size());
    batch.padded_tokens = stage.packing ? batch.tokens : count * longest;
    if (branches) batch.mask_elements = count * longest * longest;
    facts.rows = std::max(facts.rows, static_cast<std::int64_t>(rows.size()));
    facts.batches.push_back(batch);
  }
}

StageFacts facts_of_data(const TrainConfig& run, const StageConfig& stage, const CheckpointInfo& checkpoint,
                         std::int64_t processes) {
  const Dataset dataset(stage.data, "");
  const SampleOrder order(dataset,
                          OrderOptions{stage.sampler, stage.batch_size, stage.grad_accum, run.seed});
  const SamplePreparer preparer = make_preparer(checkpoint, run, stage, dataset);
  StageFacts facts;
  facts.samples = static_cast<std::int64_t>(dataset.size());
  facts.samples_per_epoch = order.samples_per_epoch();
  facts.steps = order.total_steps(stage.max_steps, stage.epochs);
  const std::int64_t seen =
      std::clamp<std::int64_t>(kSamplesSeen * processes / stage.samples_per_step(), 1, facts.steps);
  Loader loader(order, std::cref(preparer),
                {run.loader_threads, 0, seen, 2, run.seed, dataset.size(), 0, processes});
  double samples = 0;
  for (std::int64_t i = 0; i < seen; ++i) {
    const LoadedStep step = loader.next();
    samples += static_cast<double>(step.samples.size());
    add_step(step, stage, facts);
    if (i > 0) continue;
    facts.tokens_first_step = facts.whole.tokens;
    for (const MicroBatch& batch : facts.batches)
      facts.padded_tokens_first_step += static_cast<std::int64_t>(batch.padded_tokens);
  }
  const double scale =
      static_cast<double>(facts.steps) / static_cast<double>(seen) * static_cast<double>(processes);
  facts.images *= static_cast<double>(facts.samples_per_epoch) / std::max(1.0, samples);
  const auto grow = [&](std::int64_t& n) { n = static_cast<std::int64_t>(static_cast<double>(n) * scale); };
  grow(facts.whole.tokens), grow(facts.whole.supervised_tokens), grow(facts.whole.views);
  facts.whole.attended_pairs *= scale;
  return facts;
}

/// Means say nothing about the longest rows: a micro-batch of rows twice as long as the mean stands for the
/// worst.
MicroBatch worst_batch(const StageConfig& stage, double rows) {
  const ExpectedData& e = *stage.expected;
  const double longest = std::min(static_cast<double>(stage.max_length), kLongestRow * e.tokens);
  MicroBatch batch;
  batch.tokens = rows * longest;
  if (stage.packing) batch.tokens = static_cast<double>(stage.pack_tokens());
  if (!stage.packing && stage.max_tokens_per_batch > 0)
    batch.tokens = std::clamp(static_cast<double>(stage.max_tokens_per_batch), longest, batch.tokens);
  batch.padded_tokens = batch.tokens;
  const double samples = batch.tokens / longest;
  batch.supervised_tokens = std::min(batch.tokens, kLongestRow * e.supervised_tokens * samples);
  batch.views = std::ceil(samples * e.images) * e.tiles;
  return batch;
}

StageFacts facts_of_expected(const StageConfig& stage, const ModelConfig& model, std::int64_t processes) {
  const ExpectedData& e = *stage.expected;
  const auto per_step = static_cast<double>(stage.samples_per_step());
  StageFacts facts;
  facts.expected = true;
  facts.samples = facts.samples_per_epoch = static_cast<std::int64_t>(e.samples);
  facts.steps = stage.max_steps > 0
                    ? stage.max_steps
                    : static_cast<std::int64_t>(std::ceil(stage.epochs * e.samples / per_step));
  const double all =
      stage.max_steps > 0 ? static_cast<double>(facts.steps) * per_step : stage.epochs * e.samples;
  const double tiles = model.tower ? e.tiles : 0;
  facts.whole.tokens = static_cast<std::int64_t>(all * e.tokens);
  facts.whole.supervised_tokens = static_cast<std::int64_t>(all * e.supervised_tokens);
  facts.whole.views = static_cast<std::int64_t>(all * e.images * tiles);
  facts.whole.attended_pairs = all * e.tokens * e.tokens;
  facts.images = e.samples * e.images;
  facts.tiled = e.tiles > 1;
  const double share = std::ceil(per_step / static_cast<double>(processes));
  facts.rows = static_cast<std::int64_t>(std::min(share, static_cast<double>(stage.batch_size)));
  facts.several_micro_batches = share > static_cast<double>(facts.rows);
  facts.views_ahead = kStepsAhead * share * e.images * tiles;
  facts.batches = {worst_batch(stage, static_cast<double>(facts.rows))};
  return facts;
}

}  // namespace

StageFacts stage_facts(const TrainConfig& run, const StageConfig& stage,
                       const std::optional<CheckpointInfo>& checkpoint, const ModelConfig& model,
                       std::int64_t processes) {
  if (checkpoint && (data_are_here(stage) || !stage.expected))
    return facts_of_data(run, stage, *checkpoint, processes);
  if (!stage.expected)
    throw Error(
        ErrorKind::kInput,
        fmt::format("stage {}: its data cannot be looked at without the model", stage.name),
        "give the stage `expected: {samples: N, tokens: N, supervised_tokens: N, images: N}`, means over "
        "its samples");
  return facts_of_expected(stage, model, processes);
}

}  // namespace llava
