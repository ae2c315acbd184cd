// What the trainer does beside its steps: it judges them, measures the model, saves, and ends a stage.
#include <torch/torch.h>

#include <chrono>
#include <cmath>

#include "base/log.h"
#include "batch/collate.h"
#include "train/checkpoint_saver.h"
#include "train/retention.h"
#include "train/shown_samples.h"
#include "train/stage.h"
#include "train/stage_setup.h"
#include "train/step_guard.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

OrderedJson finite_or_text(double value) {
  return std::isfinite(value) ? OrderedJson(value) : OrderedJson(fmt::format("{}", value));
}

}  // namespace

void Trainer::open_watch() {
  const fs::path output = config_.output;
  saver_ = std::make_unique<CheckpointSaver>(
      CheckpointSaver::Options{output, config_.save_total_limit, options_.on_save_phase});
  if (!is_main()) return;  // one process writes
  set_aside_later(output, state_.global_step);
  metrics_ = std::make_unique<MetricsWriter>(output, state_.global_step, config_.tensorboard);
  const auto lines = [&](const char* name) { return JsonLines(output / name, state_.global_step); };
  logs_ = std::make_unique<RunLogs>(RunLogs{lines("bad_steps.jsonl"), lines("bad_samples.jsonl"),
                                            lines("stages.jsonl"), lines("samples.jsonl")});
}

/// The rates a step is made with and what its gradients are multiplied with.
void Trainer::note_rates(const Stage& stage, double multiplier, StepMetrics& metrics) const {
  for (const TrainedParameter& p : stage.optimizer->parameters())
    metrics.lr = std::max(metrics.lr, p.peak_lr * multiplier);
  const PatternNumbers& rates = stage.config->lr;
  if (rates.size() > 1)
    for (const auto& [pattern, rate] : rates)
      metrics.group_lr.emplace_back(pattern.empty() ? "other" : pattern, rate * multiplier);
  metrics.clip_coefficient = stage.optimizer->clip_coefficient(metrics.grad_norm);
}

/// float16: brings the loss scale to where gradients fit. True if they did not this time.
bool Trainer::overflowed(const Stage& stage, const StepMetrics& metrics) {
  if (!is_half()) return false;
  const bool overflow = !std::isfinite(metrics.grad_norm);
  state_.loss_scale.update(overflow, stage.config->optim.loss_scale);
  if (overflow)
    log_warning("train", "step {}: gradients overflow float16; nothing is moved, the loss scale is {} now",
                metrics.step, state_.loss_scale.scale);
  return overflow;
}

/// Whether the step's update is made. Bad steps are noted with their samples; Error{kInternal} to abort.
bool Trainer::accept_step(const Stage& stage, const LoadedStep& step, const StepMetrics& metrics) {
  const StepVerdict verdict =
      judge_step(stage.config->guard, state_.guard, metrics.loss, metrics.grad_norm);
  if (verdict.reason.empty()) return true;
  const char* action = verdict.abort ? "abort" : verdict.update ? "warn" : "skip";
  OrderedJson line = {{"step", metrics.step},
                      {"stage", metrics.stage},
                      {"action", action},
                      {"reason", verdict.reason},
                      {"loss", finite_or_text(metrics.loss)},
                      {"grad_norm", finite_or_text(metrics.grad_norm)},
                      {"samples", OrderedJson::array()}};
  for (const PreparedSample& sample : step.samples)
    line["samples"].push_back({{"index", sample.index}, {"sample", stage.dataset->describe(sample.index)}});
  if (logs_) logs_->bad_steps.write(line);
  if (verdict.abort)
    throw Error(ErrorKind::kInternal, fmt::format("step {}: {}", metrics.step, verdict.reason),
                "lower the learning rate or use float32; the checkpoints before this step are intact and "
                "bad_steps.jsonl names its samples");
  log_warning("train", "step {}: {}; {}", metrics.step, verdict.reason,
              verdict.update ? "its samples are in bad_steps.jsonl"
                             : "no update, its samples are in bad_steps.jsonl");
  return verdict.update;
}

/// For the report: what the stage is, and its first samples as the model gets them.
void Trainer::describe_stage(const Stage& stage, const LoadedStep& first) {
  constexpr std::size_t kShown = 3;
  const TrainedCounts trained = count_trained(stage.trained);
  logs_->stages.write({{"step", state_.global_step},
                       {"stage", stage.config->name},
                       {"steps", stage.total_steps},
                       {"records", stage.dataset->size()},
                       {"samples_per_step", stage.config->samples_per_step()},
                       {"trained_parameters",
                        {{"vision_tower", trained.tower},
                         {"mm_projector", trained.connector},
                         {"language_model", trained.decoder},
                         {"lora", trained.lora}}}});
  for (std::size_t i = 0; i < std::min(kShown, first.samples.size()); ++i) {
    OrderedJson line = {{"step", state_.global_step}, {"stage", stage.config->name}};
    line.update(describe_sample(first.samples[i], *stage.dataset, stage.config->turns, stage.preparer.kind,
                                *checkpoint_.tokenizer, "training"));
    logs_->samples.write(line);
  }
}

/// For the report: the model's own answers to the first validation samples.
void Trainer::show_answers(const Stage& stage) {
  constexpr std::int64_t kMaxTokens = 64;
  const auto batch = [&](const auto& rows) { return make_batch(stage, rows, /*packed=*/false); };
  for (const PreparedSample& sample : stage.validator->samples_to_show()) {
    OrderedJson line = {{"step", state_.global_step - 1}, {"stage", stage.config->name}};
    line.update(describe_sample(sample, stage.validator->dataset(), stage.config->turns,
                                RecordKind::kInstruction, *checkpoint_.tokenizer, "validation"));
    line["answer"] = answer_first_question(*model_, sample, batch, checkpoint_, kMaxTokens);
    logs_->samples.write(line);
  }
}

/// Measures the model if that is due and was not done yet. True if the result is the best of the stage.
bool Trainer::validate(Stage& stage) {
  if (!stage.validator || !stage.validator->due(state_.stage_step, stage.total_steps) ||
      state_.validation.measured_step == state_.global_step)
    return false;
  const ValidationConfig& config = stage.validator->config();
  std::optional<WeightAverages::InPlace> averages;
  if (config.use_ema) averages.emplace(*stage.averages);
  auto result = stage.validator->measure(
      *model_, [&](const auto& rows) { return make_batch(stage, rows, /*packed=*/false); },
      stage.parallel ? nullptr : options_.stop);  // ranks stop together, after a step
  if (!result) return false;
  result->step = state_.global_step - 1;
  result->stage = stage.config->name;
  result->best = note_result(config, state_.validation, stage.index, state_.global_step, result->loss);
  if (metrics_) metrics_->write_validation(*result);
  if (logs_ && !layers_are_cut(stage)) show_answers(stage);
  if (options_.on_validation) options_.on_validation(*result);
  log_info("validation", "after step {}: loss {:.4f}, {:.1f} % of {} tokens right{}", state_.global_step,
           result->loss, 100 * result->token_accuracy, result->tokens,
           result->best ? ", the best so far" : "");
  return result->best;
}

bool Trainer::stopped_early(const Stage& stage) const {
  return state_.validation.stop && state_.validation.stage == stage.index;
}

void Trainer::save(const Stage* stage) {
  // ranks decide alike; one process tries again what could not be written
  const std::int64_t last = options_.group ? saved_step_ : saver_->last_step();
  if (stage != nullptr && last == state_.global_step) return;
  saved_step_ = state_.global_step;
  const auto start = std::chrono::steady_clock::now();
  RunningState running;
  if (stage != nullptr) {
    running.optimizer = stage->optimizer.get();
    if (stage->averages) running.averages = stage->averages->tensors();
  }
  saver_->wait();  // before copies are made: never two in memory
  const std::vector<fs::path> ready = write_shards(stage);
  if (!is_main()) return;
  const bool whole = stage != nullptr && !stage->is_sharded();
  const bool beside = config_.async_save && stage != nullptr;
  const auto best = state_.validation.best_step;
  CheckpointContent content = take_content(state_, *model_, whole ? &running : nullptr, config_yaml_, beside);
  content.ready = ready;
  saver_->save(std::move(content), best >= 0 ? std::optional(best) : std::nullopt, beside);
  save_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Restores what a checkpoint within a stage holds besides the weights.
void Trainer::resume_stage(Stage& stage) {
  if (!resume_shards(stage)) load_optimizer(resume_from_, *stage.optimizer, model_->device());
  if (!stage.averages) return;
  if (fs::exists(resume_from_ / "ema.safetensors")) {
    load_tensors(resume_from_, "ema.safetensors", stage.averages->tensors());
  } else {
    log_warning("train", "{} has no averages (ema_decay was 0): they start from its weights",
                resume_from_.string());
  }
}

/// Sets the weights a stage ends with: those of its best checkpoint, or the averages, where the config says
/// so.
void Trainer::end_stage(Stage& stage) {
  saver_->wait();
  saver_->poll();
  wait_for_all("end of the stage");  // what rank 0 has saved can be read
  const ValidationState& v = state_.validation;
  const bool wants_best = stage.validator && stage.validator->config().load_best_model_at_end;
  if (wants_best && v.stage == stage.index && v.best_step >= 0 && v.best_step != state_.global_step) {
    const fs::path best = fs::path(config_.output) / fmt::format("checkpoint-{}", v.best_step);
    with_context("load_best_model_at_end", [&] {
      verify_checkpoint(best);
      load_weights(best, *model_);
      if (stage.averages) load_tensors(best, "ema.safetensors", stage.averages->tensors());
    });
    log_info("train", "stage {} ends with the weights after step {} (validation loss {:.4f})",
             stage.config->name, v.best_step, v.best_loss);
  }
  if (stage.averages && stage.config->ema.ema_final) stage.averages->copy_into_weights();
  state_.guard.losses.clear();
  state_.guard.norms.clear();
}

}  // namespace llava
