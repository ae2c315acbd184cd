#include "train/trainer.h"

#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/file_lock.h"
#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/yaml.h"
#include "batch/collate.h"
#include "loader/load_model.h"
#include "model/fused_block.h"
#include "tensor/convert.h"
#include "train/connector_init.h"
#include "train/final_model.h"
#include "train/flops.h"
#include "train/objective.h"
#include "train/schedule.h"
#include "train/stage.h"
#include "train/stage_setup.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Trainer::Trainer(TrainConfig config, TrainOptions options)
    : config_(std::move(config)), options_(std::move(options)) {
  config_yaml_ = to_yaml(to_fields(config_));
  state_.code_version = options_.code_version;
}

Trainer::~Trainer() = default;

void Trainer::run() {
  start_or_resume();
  agree_on_start();
  load_model_once();
  fs::create_directories(config_.output);
  std::optional<FileLock> lock;
  if (is_main()) {
    lock.emplace(config_.output);
    write_file_atomic(fs::path(config_.output) / "config.yaml", config_yaml_);
  }
  open_watch();
  peak_flops_ =
      measure_matmul_flops(fused::compute_type(model_->dtype(), model_->device()), model_->device());
  while (state_.stage < static_cast<std::int64_t>(config_.stages.size())) {
    auto stage = open_stage(state_.stage, true);
    if (state_.stage_step == 0) state_.loss_scale = {stage->config->optim.loss_scale.init, 0};
    if (state_.stage_step > 0) resume_stage(*stage);
    run_stage(*stage);
    if (stage->parallel) stage->parallel->finish();
    end_stage(*stage);
    ++state_.stage;
    state_.stage_step = 0;
    save(nullptr);
  }
  if (is_main())
    write_final_model(fs::path(config_.output) / "final", checkpoint_, *model_, state_, config_.stages.back());
  saver_->finish();
  wait_for_all("final model");
  log_info("train", "done: {} steps; the model is {}/final", state_.global_step, config_.output);
}

void Trainer::start_or_resume() {
  const auto found = options_.resume.empty() || options_.resume == "auto"
                         ? find_checkpoint(config_.output)
                         : std::optional<fs::path>(options_.resume);
  if (options_.resume.empty()) {
    if (found)
      throw Error(ErrorKind::kUsage,
                  fmt::format("{} already holds {}", config_.output, found->filename().string()),
                  "continue it with --resume auto, or choose another output");
    return;
  }
  if (!found) {
    log_info("train", "{}: no checkpoint yet, starting at step 0", config_.output);
    return;
  }
  verify_checkpoint(*found);
  resume_from_ = *found;
  const std::string own = state_.code_version;
  state_ = read_state(resume_from_);
  const std::string saved_by = std::exchange(state_.code_version, own);
  if (!is_main()) return;  // one process says it
  if (read_file(resume_from_ / "config.yaml") != config_yaml_)
    log_warning("train", "the config differs from the one {} was saved with; going on with the new one",
                resume_from_.string());
  if (saved_by != own)
    log_warning("train", "{} was saved by version {}, this is {}", resume_from_.string(), saved_by, own);
  log_info("train", "resuming after step {} from {}", state_.global_step, resume_from_.string());
}

void Trainer::load_model_once() {
  at::manual_seed(config_.seed);
  checkpoint_ = read_checkpoint(find_model(config_.model));
  const bool new_connector = needs_new_connector(checkpoint_);
  LoadOptions load;
  load.device = options_.device;
  load.dtype = dtype_from_string(config_.stages.front().dtype);
  if (new_connector) load.new_connector_seed = config_.seed;
  load.quantization = config_.quantization;
  load.merge_adapters =
      checkpoint_.layout != Layout::kNano;  // a folder of parts gets its adapter written back
  model_ = load_model(checkpoint_, load);
  if (!checkpoint_.adapters.empty() && load.merge_adapters)
    for (const NamedParameter& p : model_->parameters()) state_.touched.insert(p.name);
  bool has_pairs = false;
  for (const NamedParameter& p : model_->parameters()) has_pairs |= is_lora_name(p.name);
  if (resume_from_.empty()) {
    if (new_connector) match_embedding_scale(*model_);
    if (has_pairs) {
      const AdapterFiles& adapter = checkpoint_.adapters.back();
      state_.lora = LoraSettings{.r = adapter.r,
                                 .lora_alpha = adapter.lora_alpha,
                                 .target = "",
                                 .use_rslora = adapter.use_rslora,
                                 .use_dora = adapter.use_dora};
    }
    return;
  }
  if (state_.lora && !has_pairs) apply_lora(*model_, std::nullopt, state_.lora, 0, state_.touched);
  load_weights(resume_from_, *model_);
}

void Trainer::run_stage(Stage& stage) {
  log_info("train", "stage {} ({}): {} steps of {} samples, {} parameters train", stage.index,
           stage.config->name, stage.total_steps, stage.config->samples_per_step(),
           stage.optimizer->num_parameters());
  Loader loader(*stage.order, std::cref(stage.preparer),
                {config_.loader_threads, state_.stage_step, stage.total_steps, 2, config_.seed,
                 stage.dataset->size(), rank(), world()});
  Progress progress("training", stage.total_steps, state_.stage_step, {.enabled = is_main()});
  StepSummary summary;
  for (const std::int64_t first = state_.stage_step;;) {
    const bool improved = validate(stage);
    if (must_stop(stage)) {
      progress.finish();
      save(&stage);
      saver_->finish();
      throw Error(ErrorKind::kStopped, fmt::format("stopped after step {}, saved", state_.global_step),
                  "run again with --resume auto");
    }
    if (state_.stage_step == stage.total_steps || stopped_early(stage)) break;
    const bool due = config_.save_steps > 0 && state_.global_step % config_.save_steps == 0;
    if ((due || improved) && state_.stage_step > first) save(&stage);
    saver_->poll();
    const StepMetrics metrics = run_step(stage, loader);
    ++state_.global_step;
    ++state_.stage_step;
    if (metrics_) metrics_->write(metrics);
    if (options_.on_step) options_.on_step(metrics);
    progress.update(state_.stage_step, summary.add(metrics));
  }
}

StepMetrics Trainer::run_step(Stage& stage, Loader& loader) {
  const auto start = Clock::now();
  StepMetrics metrics;
  metrics.step = state_.global_step;
  metrics.stage = stage.config->name;
  metrics.save_seconds = std::exchange(save_seconds_, 0.0);
  const LoadedStep step = loader.next();
  metrics.data_wait_seconds = seconds_since(start);
  metrics.samples = static_cast<std::int64_t>(step.samples.size());
  note_bad_samples(stage, step);
  if (state_.stage_step == 0 && is_main()) describe_stage(stage, step);
  if (is_half()) stage.optimizer->set_loss_scale(state_.loss_scale.scale);
  metrics.loss = backward(stage, step, metrics);
  metrics.grad_norm = end_backward(stage, metrics.loss);
  const double multiplier =
      schedule_multiplier(stage.config->schedule, state_.stage_step, stage.total_steps);
  note_rates(stage, multiplier, metrics);
  if (!overflowed(stage, metrics) && accept_step(stage, step, metrics)) {
    stage.optimizer->step(multiplier, metrics.grad_norm);
    if (stage.parallel) stage.parallel->spread();
    if (stage.averages) stage.averages->update();
  } else {
    metrics.skipped = true;
    stage.optimizer->clear_gradients();
  }
  metrics.step_seconds = seconds_since(start);
  metrics.peak_memory_bytes = peak_memory_bytes(model_->device());
  metrics.model_flops = step_flops(checkpoint_.model, stage.trained, metrics, stage.config->objective,
                                   stage.cache != nullptr);
  const double peak = peak_flops_ * static_cast<double>(world());
  metrics.mfu = peak > 0 ? metrics.model_flops / metrics.step_seconds / peak : 0;
  const double again = recomputed_flops(checkpoint_.model, stage.trained, metrics, stage.config->objective,
                                        stage.config->gradient_checkpointing, stage.cache != nullptr);
  metrics.hfu = metrics.mfu * (1 + again / std::max(1.0, metrics.model_flops));
  return metrics;
}

bool Trainer::is_half() const { return model_->dtype() == c10::ScalarType::Half; }

double Trainer::loss_scale() const { return is_half() ? state_.loss_scale.scale : 1.0; }

double Trainer::backward(Stage& stage, const LoadedStep& step, StepMetrics& metrics) {
  if (stage.step_objective) return stage.step_objective->backward(step, metrics);
  const StageConfig& config = *stage.config;
  std::vector<std::size_t> lengths;
  std::vector<std::int64_t> terms;
  for (const PreparedSample& sample : step.samples) {
    lengths.push_back(sample.prompt.ids.size());
    terms.push_back(count_terms(sample.prompt.labels, !sample.media.empty(), config.objective));
    metrics.tokens += static_cast<std::int64_t>(sample.prompt.ids.size());
    metrics.attended_pairs += std::pow(static_cast<double>(sample.prompt.ids.size()), 2);
    metrics.supervised_tokens += count_terms(sample.prompt.labels, true, Objective::kLm);
    count_media(sample, metrics);
  }
  const auto batches = micro_batches(lengths, config);
  const StepShare share = share_step(stage, step, terms, batches.size(), metrics);
  const auto rounds = stage.parallel ? stage.parallel->rounds(static_cast<std::int64_t>(batches.size()))
                                     : static_cast<std::int64_t>(batches.size());
  double loss = 0;
  for (std::size_t round = 0; round < static_cast<std::size_t>(rounds); ++round) {
    if (stage.parallel)
      stage.parallel->begin_round(round + 1 == static_cast<std::size_t>(rounds), 1.0 / loss_scale());
    loss += backward_batch(stage, step, round < batches.size() ? batches[round] : std::vector<std::size_t>{},
                           terms, share);
    if (stage.parallel) stage.parallel->end_round();
  }
  return loss;
}

double Trainer::backward_batch(Stage& stage, const LoadedStep& step, const std::vector<std::size_t>& rows,
                               const std::vector<std::int64_t>& terms, const StepShare& share) {
  const StageConfig& config = *stage.config;
  std::vector<const PreparedSample*> samples;
  std::int64_t micro_terms = 0;
  for (const std::size_t row : rows) {
    samples.push_back(&step.samples[row]);
    micro_terms += terms[row];
  }
  if (micro_terms == 0) {
    if (stage.parallel && stage.parallel->runs_empty_rounds()) empty_pass();
    return 0;
  }
  const LlavaModel::Loss part =
      objective_loss(*model_, make_batch(stage, samples, config.packing), config.objective,
                     stage.answers.get(), answer_directions(stage, samples));
  LLAVA_ASSERT(part.tokens == micro_terms, "the loss covers other tokens than the labels say");
  const bool by_token = config.loss_normalisation == LossNormalisation::kToken;
  const double scale =
      by_token ? 1.0 / share.terms : 1.0 / static_cast<double>(micro_terms) / share.micro_batches;
  const at::Tensor scaled = part.sum * scale;
  if (!stage.parallel) {
    stage.optimizer->backward(scaled);
  } else if (scaled.requires_grad()) {
    (is_half() ? scaled * loss_scale() : scaled).backward();
  }
  return scaled.item<double>();
}

at::Tensor Trainer::answer_directions(const Stage& stage,
                                      const std::vector<const PreparedSample*>& rows) const {
  if (!stage.answers) return {};
  std::vector<at::Tensor> directions;
  for (const PreparedSample* row : rows)
    directions.push_back(
        stage.answers->direction(row->prompt.labels, stage.dataset->info(row->index).source));
  return at::stack(directions);
}

CollateRow Trainer::make_row(const Stage& stage, const PreparedSample& sample) const {
  CollateRow row{&sample.prompt, {}, stage.cache ? MediaForm::kFeatures : MediaForm::kPixels};
  for (const PreparedMedia& media : sample.media) {
    if (media.cache_slot >= 0) {
      row.media.push_back(stage.cache->features(media.cache_slot));
      continue;
    }
    auto* pixels = const_cast<float*>(media.pixels.data());  // read only; the sample outlives the batch
    at::Tensor tiles = at::from_blob(
        pixels, {media.plan.num_tiles, 3, media.plan.tile_height, media.plan.tile_width}, at::kFloat);
    if (stage.cache) {  // became readable after the cache was filled
      const at::NoGradGuard no_grad;
      tiles = model_->encode_vision(tiles);
    }
    row.media.push_back(tiles);
  }
  return row;
}

MultimodalBatch Trainer::make_batch(const Stage& stage, const std::vector<const PreparedSample*>& rows,
                                    bool packed) const {
  std::vector<CollateRow> collated;
  for (const PreparedSample* sample : rows) collated.push_back(make_row(stage, *sample));
  return packed ? collate_packed(collated, model_->config()) : collate(collated, model_->config());
}

void Trainer::note_bad_samples(const Stage& stage, const LoadedStep& step) {
  state_.samples_seen += static_cast<std::int64_t>(step.samples.size());
  for (const BadSample& bad : step.bad) {
    ++state_.bad_samples;
    if (logs_)
      logs_->bad_samples.write(
          {{"step", state_.global_step}, {"index", bad.index}, {"reason", bad.reason}});
    if (state_.bad_samples <= 20) log_warning("data", "not used: {}", bad.reason);
    if (state_.bad_samples == 20) log_warning("data", "further unusable samples are only counted");
  }
  if (!step.bad.empty() && config_.too_many_bad(state_.bad_samples, state_.samples_seen))
    throw Error(
        ErrorKind::kInput,
        fmt::format("{} of {} samples could not be used (limit {:.1f} %); the last: {}", state_.bad_samples,
                    state_.samples_seen, 100 * config_.max_bad_fraction, step.bad.back().reason),
        fmt::format("repair the data of stage {} or raise max_bad_fraction", stage.config->name));
}

}  // namespace llava
