#include "train/dpo_objective.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "train/trainer.h"

namespace llava {

/// Sums over a step; what the losses are divided by.
struct DpoObjective::Totals {
  double pairs = 0, chosen_tokens = 0;
  double loss = 0, chosen_reward = 0, rejected_reward = 0, accurate = 0, chosen = 0, rejected = 0;
};

bool trains_tower(const std::vector<NamedParameter>& trained) {
  return std::any_of(trained.begin(), trained.end(),
                     [](const NamedParameter& p) { return p.name.rfind("vision_tower.", 0) == 0; });
}

std::filesystem::path reference_file(const StepContext& context) {
  return context.output / fmt::format("reference-{}.safetensors", context.stage);
}

std::unique_ptr<ReferenceLogProbs> open_log_probs(const StepContext& context, const PreferenceConfig& config,
                                                  ReferencePolicy& reference) {
  std::filesystem::path file = config.ref_log_probs_path;
  if (file.empty()) file = context.output / fmt::format("reference-log-probs-{}.safetensors", context.stage);
  return std::make_unique<ReferenceLogProbs>(
      file, fmt::format("{}-{:016x}", data_key(*context.dataset, *context.config), reference.hash()),
      context.dataset->size());
}

DpoObjective::DpoObjective(StepContext context)
    : context_(std::move(context)),
      config_(context_.config->preference.value_or(PreferenceConfig{})),
      reference_(*context_.model, *context_.trained, reference_file(context_), context_.resumed),
      trains_tower_(trains_tower(*context_.trained)) {
  if (config_.precompute_ref_log_probs) precompute();
}

void DpoObjective::precompute() {
  known_ = open_log_probs(context_, config_, reference_);
  if (known_->complete()) {
    log_info("train", "reference log-probabilities are there already");
    return;
  }
  Progress progress("reference", context_.epoch_steps, 0);
  context_.visit_steps(context_.epoch_steps, [&](const LoadedStep& step) {
    for (const Pairs& pairs : cut(step)) {
      const at::Tensor sums = reference_pass(pairs, rows_of(pairs, true)).cpu();
      const auto* values = sums.data_ptr<float>();
      for (std::size_t i = 0; i < pairs.size(); ++i)
        known_->set(pairs[i]->index, values[i], values[i + pairs.size()]);
    }
    progress.update(step.step + 1, "");
  });
  known_->finish();
}

std::vector<DpoObjective::Pairs> DpoObjective::cut(const LoadedStep& step) const {
  std::vector<std::size_t> lengths;
  for (const PreparedSample& s : step.samples)
    lengths.push_back(2 * std::max(s.prompt.ids.size(), s.rejected.ids.size()));
  std::vector<Pairs> cut;
  for (const auto& batch :
       cut_micro_batches(lengths, context_.config->batch_size, context_.config->max_tokens_per_batch)) {
    Pairs& pairs = cut.emplace_back();
    for (const std::size_t i : batch) pairs.push_back(&step.samples[i]);
  }
  return cut;
}

std::vector<CollateRow> DpoObjective::rows_of(const Pairs& pairs, bool for_reference) const {
  std::vector<CollateRow> rows;
  for (const PreparedSample* pair : pairs) rows.push_back(context_.row(*pair));
  rows = with_features(*context_.model, std::move(rows), trains_tower_ && !for_reference);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    CollateRow other = rows[i];
    other.prompt = &pairs[i]->rejected;
    rows.push_back(std::move(other));
  }
  return rows;
}

at::Tensor DpoObjective::reference_pass(const Pairs& pairs, const std::vector<CollateRow>& rows) {
  at::Tensor sums;
  reference_.run([&] {
    const bool own = !reference_.shares_tower();
    sums = answer_log_probs(*context_.model, own ? rows_of(pairs, true) : rows).sums;
  });
  return sums;
}

at::Tensor DpoObjective::reference(const Pairs& pairs, const std::vector<CollateRow>& rows) {
  const bool stored = known_ && std::all_of(pairs.begin(), pairs.end(),
                                            [&](const auto* pair) { return known_->has(pair->index); });
  if (!stored) return reference_pass(pairs, rows);
  std::vector<float> values;
  for (const PreparedSample* pair : pairs) values.push_back(static_cast<float>(known_->first(pair->index)));
  for (const PreparedSample* pair : pairs) values.push_back(static_cast<float>(known_->second(pair->index)));
  return at::tensor(values).to(context_.model->device());
}

at::Tensor DpoObjective::loss(const PairLogProbs& pairs, Totals& totals) const {
  at::Tensor loss = at::zeros({}, pairs.chosen.options());
  const auto add_sft = [&](double weight) {
    loss = loss - pairs.chosen.sum() * (weight / std::max(totals.chosen_tokens, 1.0));
  };
  for (std::size_t i = 0; i < config_.loss_type.size(); ++i) {
    const double weight = config_.loss_weights.empty() ? 1 : config_.loss_weights[i];
    if (config_.loss_type[i] == PreferenceLoss::kSft) {
      add_sft(weight);
    } else {
      loss = loss + dpo_losses(config_.loss_type[i], pairs, config_.beta, config_.label_smoothing).sum() *
                        (weight / totals.pairs);
    }
  }
  if (config_.rpo_alpha > 0) add_sft(config_.rpo_alpha);
  const at::NoGradGuard no_grad;
  const at::Tensor chosen = config_.beta * (pairs.chosen - pairs.ref_chosen),
                   rejected = config_.beta * (pairs.rejected - pairs.ref_rejected);
  totals.loss += loss.item<double>();
  totals.chosen_reward += chosen.sum().item<double>();
  totals.rejected_reward += rejected.sum().item<double>();
  totals.accurate += chosen.gt(rejected).sum().item<double>();
  totals.chosen += pairs.chosen.sum().item<double>();
  totals.rejected += pairs.rejected.sum().item<double>();
  return loss;
}

double DpoObjective::backward(const LoadedStep& step, StepMetrics& metrics) {
  Totals totals;
  totals.pairs = static_cast<double>(step.samples.size());
  const auto count = [](const Prompt& prompt) {
    return std::count_if(prompt.labels.begin() + 1, prompt.labels.end(),
                         [](std::int64_t label) { return label != kIgnoreIndex; });
  };
  for (const PreparedSample& s : step.samples) {
    totals.chosen_tokens += static_cast<double>(count(s.prompt));
    metrics.tokens += static_cast<std::int64_t>(s.prompt.ids.size() + s.rejected.ids.size());
    metrics.supervised_tokens += count(s.prompt) + count(s.rejected);
    metrics.images += static_cast<std::int64_t>(s.media.size());
  }
  for (const Pairs& pairs : cut(step)) {
    // The reference comes first: its weights must not stand in while a graph waits for its backward.
    std::vector<CollateRow> rows;
    if (reference_.shares_tower()) rows = rows_of(pairs, false);
    const at::Tensor reference_sums = reference(pairs, rows);
    if (!reference_.shares_tower()) rows = rows_of(pairs, false);
    const AnswerLogProbs policy = answer_log_probs(*context_.model, rows);
    const auto half = static_cast<std::int64_t>(pairs.size());
    const at::Tensor tokens = at::tensor(policy.tokens).to(policy.sums.options());
    const at::Tensor value = loss({policy.sums.narrow(0, 0, half), policy.sums.narrow(0, half, half),
                                   reference_sums.narrow(0, 0, half), reference_sums.narrow(0, half, half),
                                   tokens.narrow(0, 0, half), tokens.narrow(0, half, half)},
                                  totals);
    context_.optimizer->backward(value);
  }
  metrics.extra["rewards/chosen"] = totals.chosen_reward / totals.pairs;
  metrics.extra["rewards/rejected"] = totals.rejected_reward / totals.pairs;
  metrics.extra["rewards/accuracies"] = totals.accurate / totals.pairs;
  metrics.extra["rewards/margins"] = (totals.chosen_reward - totals.rejected_reward) / totals.pairs;
  metrics.extra["logps/chosen"] = totals.chosen / totals.pairs;
  metrics.extra["logps/rejected"] = totals.rejected / totals.pairs;
  return totals.loss;
}

}  // namespace llava
