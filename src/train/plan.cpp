#include "train/plan.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "base/error.h"
#include "loader/load_model.h"
#include "loader/memory.h"
#include "model/fused_block.h"
#include "recipe/recipe.h"
#include "tensor/convert.h"
#include "train/accelerators.h"
#include "train/flops.h"
#include "train/optimizer.h"
#include "train/parallel_stage.h"
#include "train/plan_advice.h"
#include "train/plan_facts.h"
#include "train/stage_setup.h"

namespace llava {

namespace {

constexpr double kUsable = 0.95;  ///< of a card's memory: the allocator leaves gaps
constexpr double kSecondsPerDay = 86400;

/// Where a run's shapes are from.
struct PlanSource {
  std::optional<CheckpointInfo> checkpoint;
  ModelConfig model;
  std::string name;
};

PlanSource find_shapes(const TrainConfig& config) {
  PlanSource source;
  if (config.recipe.empty() || try_outcome([&] { return find_model(config.model); })) {
    source.checkpoint = read_checkpoint(find_model(config.model));
    source.model = source.checkpoint->model;
    source.name = config.model;
    return source;
  }
  source.model = find_recipe(config.recipe).model;
  source.name = config.recipe;
  return source;
}

/// Resident memory of this process now; 0 where the system does not say.
double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double pages = 0, resident = 0;
  if (!(file >> pages >> resident)) return 0;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

bool pixels_are_cached(const TrainConfig& run, const StageConfig& stage, const StageShape& shape,
                       const StageFacts& facts, double& bytes) {
  if (stage.feature_cache == FeatureCacheMode::kOff || !shape.model.tower || facts.tiled ||
      facts.images == 0 || shape.trains("vision_tower."))
    return false;
  const TowerConfig& t = *shape.model.tower;
  const double size = stage.feature_cache == FeatureCacheMode::kBfloat16 ? 2 : activation_size(stage);
  bytes = facts.images * size *
          static_cast<double>(t.num_features() * t.hidden_size *
                              static_cast<std::int64_t>(t.select_layers.size()));
  return bytes <= static_cast<double>(run.feature_cache_bytes);
}

void check_packed_do_not_train(const StageShape& shape, const QuantizationSettings& quantization) {
  constexpr std::size_t kSuffix = 7;  // ".weight"
  for (const NamedParameter& p : shape.trained)
    if (p.name.ends_with("_proj.weight") && quantization.packs(p.name.substr(0, p.name.size() - kSuffix)))
      throw Error(ErrorKind::kInput, fmt::format("{} is packed in 4 bits and cannot train", p.name),
                  "train it through `lora`, or name its module in quantization.skip_modules");
}

/// Plans one stage after the other on a model without numbers, as the trainer goes through them.
class StagePlanner {
 public:
  StagePlanner(const TrainConfig& run, const PlanSource& source, const PlanOptions& options,
               const RunPlan& plan)
      : run_(run), source_(source), options_(options), plan_(plan), program_bytes_(resident_bytes()) {
    const c10::ScalarType dtype = dtype_from_string(run.stages.front().dtype);
    model_ = shape_model(source.model, dtype);
    if (!on_cpu() || !source.checkpoint) return;
    LoadOptions load;
    load.dtype = dtype;
    load.quantization = run.quantization;
    mapped_ = mapped_weights(*source.checkpoint, load);
  }

  StagePlan next(const StageConfig& stage) {
    lora_ = apply_lora(*model_, lora_, stage.lora, run_.seed, touched_);
    StageShape shape{source_.model, {}, select_trained(*model_, stage)};
    shape.all = model_->parameters();
    for (const NamedParameter& p : shape.trained)
      if (number_of(p.name, stage.lr) < 0)
        fail(ErrorKind::kInput, "lr: no pattern is found in \"{}\", which trains", p.name);
    const QuantizationSettings quantization = run_.quantization.value_or(QuantizationSettings{});
    check_packed_do_not_train(shape, quantization);
    if (options_.processes > 1) check_can_be_shared(stage, run_.distributed.strategy);
    const StageFacts facts =
        stage_facts(run_, stage, source_.checkpoint, source_.model, options_.processes);
    StagePlan plan = describe_facts(stage, shape, facts);
    plan_stage_memory(stage, shape, facts, quantization, plan);
    return plan;
  }

 private:
  bool on_cpu() const { return options_.gpu.empty() && options_.device.is_cpu(); }

  StagePlan describe_facts(const StageConfig& stage, const StageShape& shape,
                           const StageFacts& facts) const {
    StagePlan plan;
    const TrainedCounts trained = count_trained(shape.trained);
    plan.name = stage.name, plan.expected = facts.expected;
    plan.samples = facts.samples, plan.samples_per_epoch = facts.samples_per_epoch;
    plan.samples_per_step = stage.samples_per_step(), plan.steps = facts.steps;
    plan.trained_tower = trained.tower, plan.trained_connector = trained.connector;
    plan.trained_decoder = trained.decoder, plan.trained_lora = trained.lora;
    plan.tokens_first_step = facts.tokens_first_step;
    plan.padded_tokens_first_step = facts.padded_tokens_first_step;
    plan.tokens = static_cast<double>(facts.whole.tokens);
    plan.supervised_tokens = static_cast<double>(facts.whole.supervised_tokens);
    plan.views = static_cast<double>(facts.whole.views);
    plan.micro_batch = facts.rows;
    return plan;
  }

  void plan_stage_memory(const StageConfig& stage, const StageShape& shape, const StageFacts& facts,
                         const QuantizationSettings& quantization, StagePlan& plan) const {
    MemorySetup setup;
    setup.cpu = on_cpu();
    setup.processes = options_.processes, setup.strategy = run_.distributed.strategy;
    setup.quantization = quantization;
    setup.several_micro_batches = facts.several_micro_batches;
    double cache = 0;
    setup.cached_features = pixels_are_cached(run_, stage, shape, facts, cache);
    setup.cached_bytes = setup.cached_features ? cache : 0;
    setup.views_ahead = setup.cached_features ? 0 : facts.views_ahead;
    setup.copies_state = run_.async_save && run_.save_steps > 0 && facts.steps > run_.save_steps;
    setup.program_bytes = program_bytes_;
    setup.mapped = mapped_;
    const auto memory_of = [&](const PlanVariant& v) { return worst(shape, v, facts); };
    const PlanVariant as_is{stage, setup, 1.0};
    plan.memory = memory_of(as_is);
    plan.predicted_bytes = static_cast<std::int64_t>(plan.memory.peak);
    add_work(stage, shape, facts, setup.cached_features, plan);
    if (plan_.device_bytes <= 0) return;
    const double limit = plan_.device_bytes * (on_cpu() ? 1.0 : kUsable);
    plan.fits = plan.memory.peak <= limit;
    if (!plan.fits)
      plan.advice =
          advise_to_fit(as_is, facts.rows, limit, [&](const PlanVariant& v) { return memory_of(v).peak; });
  }

  static MemoryPlan worst(const StageShape& shape, const PlanVariant& v, const StageFacts& facts) {
    MemoryPlan highest;
    for (MicroBatch batch : facts.batches) {
      batch.tokens *= v.part, batch.padded_tokens *= v.part, batch.supervised_tokens *= v.part;
      batch.views *= v.part, batch.mask_elements *= v.part;
      const MemoryPlan memory = plan_memory(shape, v.stage, batch, v.setup);
      if (memory.peak > highest.peak) highest = memory;
    }
    return highest;
  }

  void add_work(const StageConfig& stage, const StageShape& shape, const StageFacts& facts, bool cached,
                StagePlan& plan) const {
    const StepMetrics& whole = facts.whole;
    plan.flops = step_flops(shape.model, shape.trained, whole, stage.objective, cached);
    plan.recomputed_flops = recomputed_flops(shape.model, shape.trained, whole, stage.objective,
                                             stage.gradient_checkpointing, cached);
    if (stage.objective == Objective::kDpo ||
        stage.objective == Objective::kKto)  // the reference's forward pass
      plan.flops += recomputed_flops(shape.model, shape.trained, whole, stage.objective, {1, false}, true);
    const double rate = plan_.flops_per_second * plan_.mfu * static_cast<double>(options_.processes);
    if (rate > 0) plan.days = plan.flops / rate / kSecondsPerDay;
  }

  const TrainConfig& run_;
  const PlanSource& source_;
  const PlanOptions& options_;
  const RunPlan& plan_;
  double program_bytes_;
  std::unique_ptr<LlavaModel> model_;
  std::set<std::string> mapped_, touched_;
  std::optional<LoraSettings> lora_;
};

void choose_device(const TrainConfig& config, const PlanOptions& options, RunPlan& plan) {
  if (!options.gpu.empty()) {
    const Accelerator& card = find_accelerator(options.gpu);
    plan.device = card.name;
    plan.device_bytes = card.memory_bytes;
    plan.flops_per_second = card.bf16_flops;
    return;
  }
  plan.device = options.device.is_cpu() ? "cpu" : "cuda";
  const c10::ScalarType dtype = dtype_from_string(config.stages.front().dtype);
  plan.flops_per_second = measure_matmul_flops(fused::compute_type(dtype, options.device), options.device);
  if (options.device.is_cpu()) plan.device_bytes = static_cast<double>(memory_status().available_bytes);
}

}  // namespace

RunPlan plan_run(const TrainConfig& config, const PlanOptions& options) {
  if (options.processes < 1 || options.processes > 1 << 20)
    fail(ErrorKind::kUsage, "--gpus: must be in [1, 1048576]");
  if (!(options.mfu > 0 && options.mfu <= 1)) fail(ErrorKind::kUsage, "--mfu: must be in (0, 1]");
  const PlanSource source = find_shapes(config);
  RunPlan plan;
  plan.model = source.name, plan.model_here = source.checkpoint.has_value();
  plan.processes = options.processes;
  plan.strategy = options.processes > 1 ? to_fields(config.distributed)["strategy"].get<std::string>() : "";
  plan.mfu = options.mfu;
  choose_device(config, options, plan);
  StagePlanner planner(config, source, options, plan);
  for (const StageConfig& stage : config.stages)
    plan.stages.push_back(
        with_context(fmt::format("stage {}", stage.name), [&] { return planner.next(stage); }));
  return plan;
}

}  // namespace llava
