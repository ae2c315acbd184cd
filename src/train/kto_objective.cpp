#include "train/kto_objective.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "train/dpo_objective.h"
#include "train/stage_setup.h"
#include "train/trainer.h"

namespace llava {

struct KtoObjective::Totals {
  double samples = 0;
  double loss = 0, kl = 0, batches = 0;
  double good = 0, bad = 0, good_reward = 0, bad_reward = 0, good_sum = 0, bad_sum = 0;
};

namespace {

std::ptrdiff_t answer_begin(const Prompt& prompt) {
  return std::find_if(prompt.labels.begin(), prompt.labels.end(),
                      [](std::int64_t label) { return label != kIgnoreIndex; }) -
         prompt.labels.begin();
}

std::vector<CollateRow> mismatched_rows(const std::vector<CollateRow>& rows,
                                        const std::vector<Prompt>& prompts) {
  std::vector<CollateRow> out = rows;
  for (std::size_t i = 0; i < out.size(); ++i) out[i].prompt = &prompts[i];
  return out;
}

}  // namespace

Prompt with_answer_of(const Prompt& question, const Prompt& answer) {
  Prompt joined = question;
  const std::ptrdiff_t keep = answer_begin(question), from = answer_begin(answer);
  joined.ids.resize(static_cast<std::size_t>(keep));
  joined.labels.resize(static_cast<std::size_t>(keep));
  joined.ids.insert(joined.ids.end(), answer.ids.begin() + from, answer.ids.end());
  joined.labels.insert(joined.labels.end(), answer.labels.begin() + from, answer.labels.end());
  joined.positions.clear();
  for (std::size_t t = 0; t < joined.ids.size(); ++t)
    joined.positions.push_back(static_cast<std::int64_t>(t));
  return joined;
}

KtoObjective::KtoObjective(StepContext context)
    : context_(std::move(context)),
      config_(context_.config->preference.value_or(PreferenceConfig{})),
      reference_(*context_.model, *context_.trained, reference_file(context_), context_.resumed),
      trains_tower_(trains_tower(*context_.trained)) {
  if (config_.precompute_ref_log_probs) precompute();
}

void KtoObjective::precompute() {
  known_ = precompute_log_probs(context_, config_, reference_, [&](const LoadedStep& step, auto& known) {
    for (const Batch& batch : cut(step)) {
      const Reference found = reference_pass(batch, rows_of(batch, true));
      const at::Tensor own = found.own.cpu(), mismatched = found.mismatched.cpu();
      for (std::size_t i = 0; i < batch.samples.size(); ++i)
        known.set(batch.samples[i]->index, own.data_ptr<float>()[i], mismatched.data_ptr<float>()[i]);
    }
  });
}

std::vector<KtoObjective::Batch> KtoObjective::cut(const LoadedStep& step) const {
  std::vector<std::size_t> lengths;
  for (const PreparedSample& s : step.samples) lengths.push_back(s.prompt.ids.size());
  std::vector<Batch> batches;
  for (const auto& rows :
       cut_micro_batches(lengths, context_.config->batch_size, context_.config->max_tokens_per_batch)) {
    Batch& batch = batches.emplace_back();
    for (const std::size_t i : rows) batch.samples.push_back(&step.samples[i]);
    for (const PreparedSample* s : batch.samples) batch.own_tokens.push_back(answer_tokens(s->prompt));
    for (std::size_t i = 0; i < rows.size(); ++i)
      batch.mismatched.push_back(with_answer_of(
          batch.samples[i]->prompt, batch.samples[(i + rows.size() - 1) % rows.size()]->prompt));
    for (const Prompt& prompt : batch.mismatched) batch.mismatched_tokens.push_back(answer_tokens(prompt));
  }
  return batches;
}

std::vector<CollateRow> KtoObjective::rows_of(const Batch& batch, bool for_reference) const {
  std::vector<CollateRow> rows;
  for (const PreparedSample* sample : batch.samples) rows.push_back(context_.row(*sample));
  return with_features(*context_.model, std::move(rows), trains_tower_ && !for_reference);
}

KtoObjective::Reference KtoObjective::reference_pass(const Batch& batch,
                                                     const std::vector<CollateRow>& rows) {
  Reference out;
  reference_.run([&] {
    const std::vector<CollateRow> own = reference_.shares_tower() ? rows : rows_of(batch, true);
    out.own = answer_log_probs(*context_.model, own, batch.own_tokens);
    out.mismatched =
        answer_log_probs(*context_.model, mismatched_rows(own, batch.mismatched), batch.mismatched_tokens);
  });
  return out;
}

KtoObjective::Reference KtoObjective::reference(const Batch& batch, const std::vector<CollateRow>& rows) {
  const auto& samples = batch.samples;
  if (!known_ ||
      !std::all_of(samples.begin(), samples.end(), [&](auto* s) { return known_->has(s->index); }))
    return reference_pass(batch, rows);
  std::vector<float> own, mismatched;
  for (const PreparedSample* s : samples) {
    own.push_back(static_cast<float>(known_->first(s->index)));
    mismatched.push_back(static_cast<float>(known_->second(s->index)));
  }
  return {at::tensor(own).to(context_.model->device()),
          at::tensor(mismatched).to(context_.model->device())};
}

void KtoObjective::backward(const Batch& batch, Totals& totals) {
  // The reference comes first: its weights must not stand in while a graph waits for its backward.
  std::vector<CollateRow> rows;
  if (reference_.shares_tower()) rows = rows_of(batch, false);
  const Reference ref = reference(batch, rows);
  if (!reference_.shares_tower()) rows = rows_of(batch, false);
  double kl = 0;
  {
    const at::NoGradGuard no_grad;
    kl = kto_kl(
        answer_log_probs(*context_.model, mismatched_rows(rows, batch.mismatched), batch.mismatched_tokens),
        ref.mismatched);
  }
  const at::Tensor policy = answer_log_probs(*context_.model, rows, batch.own_tokens);
  std::vector<std::int64_t> labels;
  for (const PreparedSample* s : batch.samples) labels.push_back(s->desirable);
  const at::Tensor desirable = at::tensor(labels).to(policy.device()).to(at::kBool);
  const at::Tensor loss = kto_losses(policy, ref.own, desirable, kl, config_).sum() / totals.samples;
  context_.optimizer->backward(loss);
  const at::NoGradGuard no_grad;
  const at::Tensor reward = config_.beta * (policy - ref.own);
  const auto sum = [](const at::Tensor& values, const at::Tensor& which) {
    return values.masked_select(which).sum().item<double>();
  };
  const at::Tensor undesirable = desirable.logical_not();
  totals.loss += loss.item<double>();
  totals.kl += kl;
  totals.batches += 1;
  totals.good += desirable.sum().item<double>();
  totals.bad += undesirable.sum().item<double>();
  totals.good_reward += sum(reward, desirable), totals.bad_reward += sum(reward, undesirable);
  totals.good_sum += sum(policy, desirable), totals.bad_sum += sum(policy, undesirable);
}

double KtoObjective::backward(const LoadedStep& step, StepMetrics& metrics) {
  Totals totals;
  totals.samples = static_cast<double>(step.samples.size());
  for (const PreparedSample& s : step.samples) {
    metrics.tokens += static_cast<std::int64_t>(s.prompt.ids.size());
    metrics.supervised_tokens += static_cast<std::int64_t>(s.prompt.ids.size()) - answer_begin(s.prompt);
    count_media(s, metrics);
  }
  for (const Batch& batch : cut(step)) backward(batch, totals);
  metrics.extra["kl"] = totals.kl / totals.batches;
  if (totals.good > 0) {
    metrics.extra["rewards/chosen"] = totals.good_reward / totals.good;
    metrics.extra["logps/chosen"] = totals.good_sum / totals.good;
  }
  if (totals.bad > 0) {
    metrics.extra["rewards/rejected"] = totals.bad_reward / totals.bad;
    metrics.extra["logps/rejected"] = totals.bad_sum / totals.bad;
  }
  if (totals.good > 0 && totals.bad > 0)
    metrics.extra["rewards/margins"] = metrics.extra["rewards/chosen"] - metrics.extra["rewards/rejected"];
  return totals.loss;
}

}  // namespace llava
