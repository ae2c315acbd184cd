#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "train/activation_checkpoint.h"
#include "train/final_model.h"
#include "train/final_policy.h"
#include "train/stage.h"
#include "train/stage_setup.h"

namespace llava {

std::vector<NamedParameter> Trainer::Stage::trained_base() const {
  std::vector<NamedParameter> base;
  std::copy_if(trained.begin(), trained.end(), std::back_inserter(base),
               [](const auto& p) { return !is_lora_name(p.name); });
  return base;
}

SamplePreparer make_preparer(const CheckpointInfo& checkpoint, const TrainConfig& run,
                             const StageConfig& config, const Dataset& dataset) {
  SamplePreparer preparer;
  preparer.dataset = &dataset;
  preparer.turns = config.turns;
  preparer.kind = record_kind(config.objective);
  preparer.needs_answer = needs_answer(config);
  preparer.format = config.chat_template ? find_chat_format(*config.chat_template) : checkpoint.chat_format;
  preparer.tokenizer = checkpoint.tokenizer;
  preparer.model = checkpoint.model;
  if (!preparer.tokenizer) fail(ErrorKind::kInput, "{}: has no tokenizer", checkpoint.folder.string());
  if (!preparer.format)
    throw Error(ErrorKind::kInput, fmt::format("{}: has no chat template", checkpoint.folder.string()),
                "name a conversation format with the stage's `template`");
  if (checkpoint.model.tower && !checkpoint.image_policy)
    fail(ErrorKind::kInput, "{}: does not say how images are prepared", checkpoint.folder.string());
  preparer.policy = stage_policy(checkpoint, config);
  preparer.set_limits(run.media);
  preparer.prompt.mode =
      config.objective == Objective::kGrpo ? PromptMode::kGenerate : PromptMode::kTrain;
  preparer.prompt.tokenisation = config.tokenisation == TokenisationMode::kSegments
                                     ? ImageTokenisation::kSegments
                                     : checkpoint.tokenisation;
  preparer.prompt.independent_turns = config.turns == TurnMode::kIndependent;
  preparer.prompt.max_length = config.max_length;
  return preparer;
}

namespace {

void check_can_pack(const ModelConfig& model, const std::string& stage) {
  if (model.compressor)
    fail(ErrorKind::kInput, "stage {}: packing is not for models that fuse a prompt's text with its images row by row",
         stage);
  if (model.decoder.rope_scaling.type == RopeType::kDynamic)
    fail(ErrorKind::kInput, "stage {}: packing is not for rope_type dynamic, whose angles depend on a row's length", stage);
}

}  // namespace

std::unique_ptr<Trainer::Stage> Trainer::open_stage(std::int64_t index, bool with_cache) {
  auto stage = std::make_unique<Stage>();
  stage->index = index;
  stage->config = &config_.stages[static_cast<std::size_t>(index)];
  const StageConfig& config = *stage->config;
  if (config.packing) check_can_pack(checkpoint_.model, config.name);
  const std::uint64_t seed = config_.seed + static_cast<std::uint64_t>(index) * 1000003;
  if (with_cache && !is_main()) wait_for_all("index of the data");  // rank 0 writes it
  stage->dataset = std::make_unique<Dataset>(config.data, with_cache ? config_.output : "");
  if (with_cache && is_main()) wait_for_all("index of the data");
  stage->order = std::make_unique<SampleOrder>(
      *stage->dataset, OrderOptions{config.sampler, config.batch_size, config.grad_accum, seed});
  stage->total_steps = stage->order->total_steps(config.max_steps, config.epochs);
  stage->preparer = make_preparer(checkpoint_, config_, config, *stage->dataset);
  state_.lora = apply_lora(*model_, state_.lora, config.lora, seed, state_.touched);
  if (options_.on_stage_start) options_.on_stage_start(*model_);
  stage->trained = select_trained(*model_, config);
  model_->set_frozen_compute(config.frozen_compute);
  set_checkpointing(*model_, config.gradient_checkpointing, stage->trained);
  for (const NamedParameter& p : stage->trained_base()) state_.touched.insert(p.name);
  check_final_model(checkpoint_, state_.touched);
  check_final_policy(checkpoint_, config_.stages.back());
  if (with_cache && !is_main()) wait_for_all("feature cache");  // rank 0 fills it, the others read it
  if (with_cache) fill_cache(*stage);
  if (with_cache && is_main()) wait_for_all("feature cache");
  if (config.validation)
    stage->validator = std::make_unique<Validator>(*config.validation, stage->preparer, config.batch_size);
  if (with_cache && config.objective == Objective::kAnswerEmbedding)
    stage->answers = std::make_unique<AnswerEmbeddings>(*model_, *stage->dataset, stage->preparer);
  make_optimizer(*stage);
  if (config.ema.ema_decay > 0)
    stage->averages = std::make_unique<WeightAverages>(*stage->optimizer, config.ema.ema_decay);
  if (with_cache) stage->step_objective = open_step_objective(*stage);
  return stage;
}

std::unique_ptr<StepObjective> Trainer::open_step_objective(const Stage& stage) const {
  StepContext context;
  context.model = model_.get();
  context.config = stage.config;
  context.optimizer = stage.optimizer.get();
  context.trained = &stage.trained;
  context.dataset = stage.dataset.get();
  context.tokenizer = checkpoint_.tokenizer.get();
  context.stop_ids = checkpoint_.stop_ids;
  for (const std::string& stop : stage.preparer.format->stop_strings()) {
    const auto id = checkpoint_.tokenizer->token_to_id(stop);
    if (id && checkpoint_.tokenizer->is_special(*id))
      context.stop_ids.push_back(*id);
    else
      context.stop_strings.push_back(stop);
  }
  context.output = config_.output;
  context.stage = stage.index;
  context.resumed = state_.stage_step > 0;
  context.seed = config_.seed;
  context.epoch_steps = std::min(stage.total_steps, stage.order->steps_per_epoch());
  context.row = [this, &stage](const PreparedSample& sample) { return make_row(stage, sample); };
  context.visit_steps = [this, &stage](std::int64_t end, const auto& show) {
    Loader loader(*stage.order, std::cref(stage.preparer),
                  {config_.loader_threads, 0, end, 2, config_.seed, stage.dataset->size()});
    for (std::int64_t step = 0; step < end; ++step) {
      if (options_.stop != nullptr && *options_.stop)
        fail(ErrorKind::kStopped, "stopped before the first step");
      show(loader.next());
    }
  };
  context.sampler = options_.sampler;
  context.judge = options_.judge;
  return make_step_objective(std::move(context));
}

void Trainer::fill_cache(Stage& stage) {
  if (stage.config->feature_cache == FeatureCacheMode::kOff || !model_->config().tower ||
      trains_tower(stage.trained))
    return;
  std::vector<MediaRef> images;
  std::vector<bool> seen(stage.dataset->size());
  for (std::int64_t step = state_.stage_step; step < stage.total_steps; ++step)
    for (const std::size_t index : stage.order->step_samples(step)) {
      if (seen[index]) continue;
      seen[index] = true;
      if (const auto sample = try_outcome([&] { return stage.dataset->load(index, stage.config->turns, stage.preparer.kind); }))
        images.insert(images.end(), sample.value().images.begin(), sample.value().images.end());
    }
  if (images.empty()) return;
  auto cache = std::make_unique<FeatureCache>(config_.output, *model_, stage.preparer.policy,
                                              stage.config->feature_cache == FeatureCacheMode::kBfloat16
                                                  ? c10::ScalarType::BFloat16
                                                  : model_->dtype());
  if (!cache->fill(images, *model_, {config_.loader_threads, config_.feature_cache_bytes, options_.stop}))
    return;
  log_info("train", "vision features of {} images are cached", cache->size());
  stage.cache = std::move(cache);
  stage.preparer.find_cached = [cached = stage.cache.get()](const MediaRef& image) {
    return cached->find(image);
  };
}

}  // namespace llava
