#include "base/log.h"
#include "train/objective.h"
#include "train/stage.h"
#include "train/stage_setup.h"

namespace llava {

namespace {

/// Bytes at the peak of a step: weights, optimizer state and gradients, and what autograd keeps of the
/// largest micro-batch.
std::int64_t predict_bytes(LlavaModel& model, const Optimizer& optimizer, std::int64_t padded_tokens,
                           std::int64_t supervised) {
  std::int64_t bytes = 0;
  for (const NamedParameter& p : model.parameters()) bytes += static_cast<std::int64_t>(p.tensor.nbytes());
  const auto size = static_cast<std::int64_t>(c10::elementSize(model.dtype()));
  bytes += optimizer.state_bytes() + optimizer.num_parameters() * (4 + size);
  const DecoderConfig& d = model.config().decoder;
  const std::int64_t kept =
      8 * d.hidden_size + 4 * d.intermediate_size + 2 * d.num_key_value_heads * d.head_dim;
  bytes += padded_tokens * kept * size * d.num_hidden_layers;
  return bytes + std::min<std::int64_t>(supervised * d.vocab_size, std::int64_t{1} << 25) * 8;
}

}  // namespace

std::vector<StagePlan> Trainer::plan() {
  load_model_once();
  std::vector<StagePlan> plans;
  for (std::size_t i = 0; i < config_.stages.size(); ++i) {
    const auto stage = open_stage(static_cast<std::int64_t>(i), false);
    const TrainedCounts trained = count_trained(stage->trained);
    StagePlan plan;
    plan.name = stage->config->name;
    plan.samples = static_cast<std::int64_t>(stage->dataset->size());
    plan.samples_per_epoch = stage->order->samples_per_epoch();
    plan.steps = stage->total_steps;
    plan.trained_tower = trained.tower;
    plan.trained_connector = trained.connector;
    plan.trained_decoder = trained.decoder;
    plan.trained_lora = trained.lora;
    Loader loader(*stage->order, std::cref(stage->preparer),
                  {config_.loader_threads, 0, 1, 1, config_.seed, stage->dataset->size()});
    const LoadedStep step = loader.next();
    note_bad_samples(*stage, step);
    std::vector<std::size_t> lengths;
    for (const PreparedSample& sample : step.samples) lengths.push_back(sample.prompt.ids.size());
    std::int64_t largest = 0, supervised = 0;
    for (const auto& rows : micro_batches(lengths, *stage->config)) {
      std::vector<const PreparedSample*> samples;
      for (const std::size_t row : rows) samples.push_back(&step.samples[row]);
      for (const std::size_t row : rows)
        supervised += count_terms(step.samples[row].prompt.labels, true, Objective::kLm);
      const MultimodalBatch batch = make_batch(*stage, samples);
      plan.tokens_first_step += batch.lengths.sum().item<std::int64_t>();
      plan.padded_tokens_first_step += batch.ids.numel();
      largest = std::max(largest, batch.ids.numel());
    }
    plan.predicted_bytes = predict_bytes(*model_, *stage->optimizer, largest, supervised);
    plans.push_back(plan);
  }
  return plans;
}

}  // namespace llava
