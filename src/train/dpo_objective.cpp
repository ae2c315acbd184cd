#include "train/dpo_objective.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "config/branch.h"
#include "train/stage_setup.h"
#include "train/trainer.h"

namespace llava {

/// Sums over a step; what the losses are divided by.
struct DpoObjective::Totals {
  double pairs = 0, chosen_tokens = 0;
  double loss = 0, chosen_reward = 0, rejected_reward = 0, accurate = 0, chosen = 0, rejected = 0;
};

std::filesystem::path reference_file(const StepContext& context) {
  return context.output / fmt::format("reference-{}.safetensors", context.stage);
}

std::unique_ptr<ReferenceLogProbs> precompute_log_probs(
    const StepContext& context, const PreferenceConfig& config, ReferencePolicy& reference,
    const std::function<void(const LoadedStep&, ReferenceLogProbs&)>& fill) {
  std::filesystem::path file = config.ref_log_probs_path;
  if (file.empty())
    file = context.output / fmt::format("reference-log-probs-{}.safetensors", context.stage);
  auto known = std::make_unique<ReferenceLogProbs>(
      file, fmt::format("{}-{:016x}", data_key(*context.dataset, *context.config), reference.hash()),
      context.dataset->size());
  if (known->complete()) {
    log_info("train", "reference log-probabilities are there already");
    return known;
  }
  Progress progress("reference", context.epoch_steps, 0);
  context.visit_steps(context.epoch_steps, [&](const LoadedStep& step) {
    fill(step, *known);
    progress.update(step.step + 1, "");
  });
  known->finish();
  return known;
}

DpoObjective::DpoObjective(StepContext context)
    : context_(std::move(context)),
      config_(context_.config->preference.value_or(PreferenceConfig{})),
      reference_(*context_.model, *context_.trained, reference_file(context_), context_.resumed),
      trains_tower_(trains_tower(*context_.trained)) {
  if (config_.precompute_ref_log_probs) precompute();
}

std::optional<Prompt> join_pair(const Prompt& chosen, const Prompt& rejected) {
  const auto same =
      std::mismatch(chosen.ids.begin(), chosen.ids.end(), rejected.ids.begin(), rejected.ids.end());
  auto common = static_cast<std::size_t>(same.first - chosen.ids.begin());
  for (const Prompt* prompt : {&chosen, &rejected}) {
    const auto answer = std::find_if(prompt->labels.begin(), prompt->labels.end(),
                                     [](std::int64_t label) { return label != kIgnoreIndex; });
    common = std::min(common, static_cast<std::size_t>(answer - prompt->labels.begin()));
  }
  if (common < 2 || !chosen.branch.empty() || !rejected.branch.empty()) return {};
  const std::size_t shared = common - 1;
  for (const Prompt* prompt : {&chosen, &rejected})
    for (const MediaSpan& span : prompt->media_spans)
      if (span.begin + span.len > shared) return {};
  Prompt joined;
  joined.media_spans = chosen.media_spans;
  const auto append = [&](const Prompt& from, std::size_t begin, std::size_t end, std::int32_t branch) {
    for (std::size_t t = begin; t < end; ++t) {
      joined.ids.push_back(from.ids[t]);
      joined.labels.push_back(from.labels[t]);
      joined.positions.push_back(from.positions.empty() ? static_cast<std::int64_t>(t) : from.positions[t]);
      joined.branch.push_back(branch);
    }
  };
  append(chosen, 0, shared, 0);
  append(chosen, shared, chosen.ids.size(), branch_id(1, 1));
  append(rejected, shared, rejected.ids.size(), branch_id(1, 2));
  return joined;
}

void DpoObjective::precompute() {
  known_ = precompute_log_probs(context_, config_, reference_, [&](const LoadedStep& step, auto& known) {
    for (const Pairs& pairs : cut(step)) {
      const at::Tensor sums = reference_pass(pairs, make_batch(pairs, true)).cpu().contiguous();
      const auto* values = sums.data_ptr<float>();
      for (std::size_t i = 0; i < pairs.size(); ++i)
        known.set(pairs[i]->index, values[i], values[i + pairs.size()]);
    }
  });
}

std::vector<DpoObjective::Pairs> DpoObjective::cut(const LoadedStep& step) const {
  std::vector<std::size_t> lengths;
  for (const PreparedSample& s : step.samples) {
    const auto joined = join_pair(s.prompt, s.rejected);
    lengths.push_back(joined ? joined->ids.size()
                             : 2 * std::max(s.prompt.ids.size(), s.rejected.ids.size()));
  }
  std::vector<Pairs> cut;
  for (const auto& batch :
       cut_micro_batches(lengths, context_.config->batch_size, context_.config->max_tokens_per_batch)) {
    Pairs& pairs = cut.emplace_back();
    for (const std::size_t i : batch) pairs.push_back(&step.samples[i]);
  }
  return cut;
}

DpoObjective::Batch DpoObjective::make_batch(const Pairs& pairs, bool for_reference) const {
  Batch batch;
  for (const PreparedSample* pair : pairs) batch.rows.push_back(context_.row(*pair));
  batch.rows = with_features(*context_.model, std::move(batch.rows), trains_tower_ && !for_reference);
  // Pre-fusion reads the prompt's text, which a branch would hold twice.
  if (!context_.model->config().compressor)
    for (const PreparedSample* pair : pairs)
      if (auto joined = join_pair(pair->prompt, pair->rejected)) batch.joined.push_back(std::move(*joined));
  if (batch.joined.size() == pairs.size()) {
    for (std::size_t i = 0; i < pairs.size(); ++i) batch.rows[i].prompt = &batch.joined[i];
    return batch;
  }
  batch.joined.clear();
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    CollateRow other = batch.rows[i];
    other.prompt = &pairs[i]->rejected;
    batch.rows.push_back(std::move(other));
  }
  return batch;
}

at::Tensor DpoObjective::log_probs(const Pairs& pairs, const Batch& batch) const {
  std::vector<std::int64_t> tokens;
  if (!batch.joined.empty()) {
    for (const PreparedSample* pair : pairs) {
      tokens.push_back(answer_tokens(pair->prompt));
      tokens.push_back(answer_tokens(pair->rejected));
    }
    return answer_log_probs(*context_.model, batch.rows, tokens).view({-1, 2}).t();
  }
  for (const PreparedSample* pair : pairs) tokens.push_back(answer_tokens(pair->prompt));
  for (const PreparedSample* pair : pairs) tokens.push_back(answer_tokens(pair->rejected));
  return answer_log_probs(*context_.model, batch.rows, tokens).view({2, -1});
}

at::Tensor DpoObjective::reference_pass(const Pairs& pairs, const Batch& batch) {
  at::Tensor sums;
  reference_.run([&] {
    const bool own = !reference_.shares_tower();
    sums = own ? log_probs(pairs, make_batch(pairs, true)) : log_probs(pairs, batch);
  });
  return sums;
}

at::Tensor DpoObjective::reference(const Pairs& pairs, const Batch& batch) {
  const bool stored = known_ && std::all_of(pairs.begin(), pairs.end(),
                                            [&](const auto* pair) { return known_->has(pair->index); });
  if (!stored) return reference_pass(pairs, batch);
  std::vector<float> values;
  for (const PreparedSample* pair : pairs) values.push_back(static_cast<float>(known_->first(pair->index)));
  for (const PreparedSample* pair : pairs)
    values.push_back(static_cast<float>(known_->second(pair->index)));
  return at::tensor(values).view({2, -1}).to(context_.model->device());
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
  for (const PreparedSample& s : step.samples) {
    totals.chosen_tokens += static_cast<double>(answer_tokens(s.prompt));
    metrics.supervised_tokens += answer_tokens(s.prompt) + answer_tokens(s.rejected);
    count_media(s, metrics);
  }
  for (const Pairs& pairs : cut(step)) {
    // The reference comes first: its weights must not stand in while a graph waits for its backward.
    Batch batch;
    if (reference_.shares_tower()) batch = make_batch(pairs, false);
    const at::Tensor before = reference(pairs, batch);
    if (!reference_.shares_tower()) batch = make_batch(pairs, false);
    for (const CollateRow& row : batch.rows)
      metrics.tokens += static_cast<std::int64_t>(row.prompt->ids.size());
    const at::Tensor now = log_probs(pairs, batch);
    std::vector<std::int64_t> chosen_tokens, rejected_tokens;
    for (const PreparedSample* pair : pairs) {
      chosen_tokens.push_back(answer_tokens(pair->prompt));
      rejected_tokens.push_back(answer_tokens(pair->rejected));
    }
    const at::Tensor value =
        loss({now[0], now[1], before[0], before[1], at::tensor(chosen_tokens).to(now.options()),
              at::tensor(rejected_tokens).to(now.options())},
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
