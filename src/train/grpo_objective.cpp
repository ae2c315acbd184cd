#include "train/grpo_objective.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "train/dpo_objective.h"
#include "train/rewards.h"
#include "train/stage_setup.h"
#include "train/trainer.h"

namespace llava {

/// A drawn answer behind its prompt.
struct GrpoObjective::Answer {
  const PreparedSample* sample = nullptr;
  std::size_t index = 0;  ///< among the step's answers
  Prompt prompt;          ///< labels at the answer
  std::string text;
  std::int64_t tokens = 0;
  bool cut_off = false;
};

struct GrpoObjective::Totals {
  std::int64_t answers = 0, tokens = 0;  ///< tokens: those that count
  double loss = 0, kl = 0;
};

namespace {

/// The prompt with an answer's tokens, labelled unless the answer is masked.
Prompt with_drawn(const Prompt& prompt, const DrawnAnswer& answer, bool masked) {
  Prompt full = prompt;
  full.labels.assign(full.ids.size(), kIgnoreIndex);
  std::int64_t position =
      full.positions.empty() ? static_cast<std::int64_t>(full.ids.size()) : full.positions.back() + 1;
  std::vector<std::int64_t> ids = answer.ids;
  if (answer.stop_id >= 0) ids.push_back(answer.stop_id);
  for (const std::int64_t id : ids) {
    full.ids.push_back(id);
    full.labels.push_back(masked ? kIgnoreIndex : id);
    if (!full.positions.empty()) full.positions.push_back(position++);
  }
  return full;
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation_of(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double sum = 0;
  for (const double v : values) sum += (v - mean) * (v - mean);
  return std::sqrt(sum / static_cast<double>(std::max<std::size_t>(values.size() - 1, 1)));
}

}  // namespace

GrpoObjective::GrpoObjective(StepContext context)
    : context_(std::move(context)),
      config_(*context_.config->grpo),
      trains_tower_(trains_tower(*context_.trained)) {
  if (!context_.sampler)
    fail(ErrorKind::kUsage, "objective grpo draws answers, which this program has no decoder for");
  const bool judged = std::find(config_.reward_funcs.begin(), config_.reward_funcs.end(), "judge") !=
                      config_.reward_funcs.end();
  if (judged && !context_.judge)
    fail(ErrorKind::kUsage, "the reward \"judge\" needs a judge, and there is none");
  if (config_.beta > 0)
    reference_ = std::make_unique<ReferencePolicy>(*context_.model, *context_.trained,
                                                   reference_file(context_), context_.resumed);
}

std::vector<GrpoObjective::Answer> GrpoObjective::draw(const LoadedStep& step,
                                                       std::int64_t step_number) const {
  std::vector<CollateRow> prompts, rows;
  for (const PreparedSample& sample : step.samples) prompts.push_back(context_.row(sample));
  const at::NoGradGuard no_grad;
  prompts = with_features(*context_.model, std::move(prompts), false);
  for (const CollateRow& prompt : prompts)
    rows.insert(rows.end(), static_cast<std::size_t>(config_.num_generations), prompt);
  SamplingParams params;
  params.temperature = config_.temperature;
  params.top_p = config_.top_p;
  params.top_k = config_.top_k;
  params.min_p = config_.min_p;
  params.repetition_penalty = config_.repetition_penalty;
  params.max_new_tokens = config_.max_completion_length;
  params.stop_ids = context_.stop_ids;
  params.stop_strings = context_.stop_strings;
  params.seed =
      Rng(context_.seed ^ (static_cast<std::uint64_t>(step_number) * 0x9E3779B97F4A7C15ULL)).next();
  const std::vector<DrawnAnswer> drawn =
      context_.sampler(*context_.model, *context_.tokenizer, rows, params);
  LLAVA_ASSERT(drawn.size() == rows.size(), "an answer for every row");
  std::vector<Answer> answers(drawn.size());
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    Answer& answer = answers[i];
    answer.sample = &step.samples[i / static_cast<std::size_t>(config_.num_generations)];
    answer.index = i;
    answer.cut_off = !drawn[i].ended;
    answer.text = drawn[i].text;
    const bool masked = config_.mask_truncated_completions && answer.cut_off;
    answer.prompt = with_drawn(answer.sample->prompt, drawn[i], masked);
    answer.tokens =
        masked ? 0 : static_cast<std::int64_t>(answer.prompt.ids.size() - answer.sample->prompt.ids.size());
  }
  return answers;
}

double GrpoObjective::reward(const std::string& name, const PreparedSample& sample,
                             const Answer& answer) const {
  if (name == "exact_match") return reward_exact_match(answer.text, sample.answer);
  if (name == "overlap") return reward_overlap(answer.text, sample.answer);
  if (name == "format") return reward_format(answer.text, config_.reward_regex);
  if (name == "length") return reward_length(answer.text, config_.reward_length);
  LLAVA_ASSERT(name == "judge", "a known reward");
  const Sample full = context_.dataset->load(sample.index, TurnMode::kConversation, RecordKind::kPrompt);
  return context_.judge({file_paths(full.images), full.conversation.messages.back().text(), answer.text});
}

std::vector<double> GrpoObjective::judge(const LoadedStep&, const std::vector<Answer>& answers,
                                         StepMetrics& metrics) const {
  std::vector<double> total(answers.size(), 0.0);
  for (std::size_t f = 0; f < config_.reward_funcs.size(); ++f) {
    const std::string& name = config_.reward_funcs[f];
    const double weight = config_.reward_weights.empty() ? 1 : config_.reward_weights[f];
    std::vector<double> own;
    for (const Answer& answer : answers) own.push_back(reward(name, *answer.sample, answer));
    for (std::size_t i = 0; i < own.size(); ++i) total[i] += weight * own[i];
    metrics.extra["rewards/" + name + "/mean"] = mean_of(own);
    metrics.extra["rewards/" + name + "/std"] = deviation_of(own);
  }
  metrics.extra["reward"] = mean_of(total);
  metrics.extra["reward_std"] = deviation_of(total);
  const at::Tensor rewards = at::tensor(total, at::kDouble);
  const at::Tensor spread = rewards.view({-1, config_.num_generations}).std(1, true);
  metrics.extra["frac_reward_zero_std"] = spread.lt(1e-8).to(at::kDouble).mean().item<double>();
  const at::Tensor advantages =
      group_advantages(rewards, config_.num_generations, config_.scale_rewards).contiguous();
  return {advantages.data_ptr<double>(), advantages.data_ptr<double>() + advantages.numel()};
}

void GrpoObjective::backward(const std::vector<const Answer*>& answers,
                             const std::vector<double>& advantages, Totals& totals) {
  // Answers of one prompt stand together: its media are encoded once.
  const auto make_rows = [&](bool for_reference) {
    std::vector<CollateRow> prompts, rows;
    std::vector<std::size_t> owner;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      if (i == 0 || answers[i]->sample != answers[i - 1]->sample)
        prompts.push_back(context_.row(*answers[i]->sample));
      owner.push_back(prompts.size() - 1);
    }
    prompts = with_features(*context_.model, std::move(prompts), trains_tower_ && !for_reference);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      rows.push_back(prompts[owner[i]]);
      rows.back().prompt = &answers[i]->prompt;
    }
    return rows;
  };
  const auto log_probs = [&](const std::vector<CollateRow>& rows) {
    return context_.model->log_probs(collate(rows, context_.model->config()), config_.temperature).values;
  };
  GrpoTerms terms;
  if (reference_) reference_->run([&] { terms.reference = log_probs(make_rows(true)); });
  terms.policy = log_probs(make_rows(false));
  terms.old = terms.policy.detach();
  std::vector<float> each, weights;
  for (const Answer* answer : answers) {
    const double weight = grpo_token_weight(config_, answer->tokens, totals.answers, totals.tokens);
    each.insert(each.end(), static_cast<std::size_t>(answer->tokens),
                static_cast<float>(advantages[answer->index]));
    weights.insert(weights.end(), static_cast<std::size_t>(answer->tokens), static_cast<float>(weight));
  }
  terms.advantages = at::tensor(each).to(terms.policy.device());
  const at::Tensor loss =
      (grpo_token_losses(terms, config_) * at::tensor(weights).to(terms.policy.device())).sum();
  context_.optimizer->backward(loss);
  totals.loss += loss.item<double>();
  if (!reference_) return;
  const at::Tensor gap = terms.reference - terms.old;
  totals.kl += (at::exp(gap) - gap - 1).sum().item<double>();
}

double GrpoObjective::backward(const LoadedStep& step, StepMetrics& metrics) {
  const std::vector<Answer> answers = draw(step, metrics.step);
  const std::vector<double> advantages = judge(step, answers, metrics);
  Totals totals;
  totals.answers = static_cast<std::int64_t>(answers.size());
  std::vector<std::size_t> lengths;
  double cut_off = 0, drawn_tokens = 0;
  for (const Answer& answer : answers) {
    lengths.push_back(answer.prompt.ids.size());
    totals.tokens += answer.tokens;
    cut_off += answer.cut_off;
    drawn_tokens += static_cast<double>(answer.prompt.ids.size() - answer.sample->prompt.ids.size());
    metrics.tokens += static_cast<std::int64_t>(answer.prompt.ids.size());
  }
  metrics.supervised_tokens = totals.tokens;
  for (const PreparedSample& s : step.samples) count_media(s, metrics);
  for (const auto& batch : cut_micro_batches(lengths, context_.config->batch_size * config_.num_generations,
                                             context_.config->max_tokens_per_batch)) {
    std::vector<const Answer*> some;
    for (const std::size_t i : batch)
      if (answers[i].tokens > 0) some.push_back(&answers[i]);
    std::sort(some.begin(), some.end(), [](auto* a, auto* b) { return a->index < b->index; });
    if (!some.empty()) backward(some, advantages, totals);
  }
  const auto num_answers = static_cast<double>(answers.size());
  metrics.extra["completions/mean_length"] = drawn_tokens / num_answers;
  metrics.extra["completions/clipped_ratio"] = cut_off / num_answers;
  if (reference_)
    metrics.extra["kl"] = totals.kl / static_cast<double>(std::max<std::int64_t>(totals.tokens, 1));
  return totals.loss;
}

}  // namespace llava
