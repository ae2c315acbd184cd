#include "config/stage_config.h"

#include <filesystem>
#include <regex>

#include "base/files.h"
#include "base/path_pattern.h"
#include "base/yaml.h"

namespace llava {

namespace {

void require(bool condition, const std::string& path, const char* rule) {
  if (!condition) fail(ErrorKind::kInput, "{}: {}", path, rule);
}

void check_regex(const std::string& pattern, const std::string& path) {
  try {
    const std::regex compiled(pattern);
  } catch (const std::regex_error& e) {
    fail(ErrorKind::kInput, "{}: \"{}\" is not a regular expression: {}", path, pattern, e.what());
  }
}

void check_patterns(const StageConfig& stage, const std::string& path) {
  for (const std::string& pattern : stage.train) check_regex(pattern, path + ".train");
  for (const auto& [pattern, lr] : stage.lr) {
    check_regex(pattern, path + ".lr");
    require(lr >= 0 && lr <= 100, path + ".lr", "a learning rate must be in [0, 100]");
  }
  require(!stage.train.empty() || stage.lora, path, "nothing trains: give `train` patterns or `lora`");
  if (!stage.lora) return;
  check_lora(*stage.lora, path + ".lora");
}

void check_optimiser(const StageConfig& stage, const std::string& path) {
  const OptimConfig& o = stage.optim;
  require(o.betas.size() == 2 && o.betas[0] >= 0 && o.betas[0] < 1 && o.betas[1] >= 0 && o.betas[1] < 1,
          path + ".optim.betas", "must be two numbers in [0, 1)");
  require(o.eps > 0, path + ".optim.eps", "must be above 0");
  for (const auto& [pattern, decay] : o.weight_decay) {
    check_regex(pattern, path + ".optim.weight_decay");
    require(decay >= 0, path + ".optim.weight_decay", "must not be negative");
  }
  require(o.max_grad_norm >= 0, path + ".optim.max_grad_norm", "must not be negative");
  require(o.momentum >= 0 && o.momentum < 1, path + ".optim.momentum", "must be in [0, 1)");
  require(o.ns_steps >= 1 && o.ns_steps <= 100, path + ".optim.ns_steps", "must be in [1, 100]");
  require(o.clip_threshold > 0, path + ".optim.clip_threshold", "must be above 0");
  require(o.decay_rate < 0, path + ".optim.decay_rate", "must be below 0");
  require(o.master_weights || stage.dtype == "bfloat16", path + ".optim.master_weights",
          "false is for bfloat16: float32 needs no second copy, float16 overflows without one");
  const LossScaleConfig& l = o.loss_scale;
  require(l.init > 0 && l.min > 0 && l.min <= l.init && l.growth_interval > 0, path + ".optim.loss_scale",
          "0 < min <= init and growth_interval >= 1 are needed");
  const ScheduleConfig& s = stage.schedule;
  require(s.warmup_ratio >= 0 && s.warmup_ratio <= 1, path + ".schedule.warmup_ratio", "must be in [0, 1]");
  require(s.decay_ratio >= 0 && s.decay_ratio <= 1, path + ".schedule.decay_ratio", "must be in [0, 1]");
  require(s.min_ratio >= 0 && s.min_ratio <= 1, path + ".schedule.min_ratio", "must be in [0, 1]");
}

void check_packing(const StageConfig& stage, const std::string& path) {
  require(stage.packing_length >= 0, path + ".packing_length", "must not be negative");
  require(stage.packing || stage.packing_length == 0, path + ".packing_length", "needs packing: true");
  if (!stage.packing) return;
  require(stage.turns == TurnMode::kConversation, path + ".packing",
          "cannot be combined with turns: independent (their branches need a row of their own)");
  require(stage.objective == Objective::kLm, path + ".packing", "needs objective: lm");
  require(stage.loss_normalisation == LossNormalisation::kToken, path + ".packing",
          "needs loss_normalisation: token (which samples share a row must not matter)");
}

void check_stage(const StageConfig& stage, const std::string& path) {
  require(!stage.name.empty() && stage.name.find('/') == std::string::npos, path + ".name",
          "must be a name without '/'");
  require(!stage.data.empty(), path + ".data", "at least one source is needed");
  for (const DataSourceConfig& source : stage.data) {
    require(!source.path.empty(), path + ".data.path", "is missing");
    require(source.weight > 0 && source.weight <= 1000, path + ".data.weight", "must be in (0, 1000]");
    require(source.limit >= 0, path + ".data.limit", "must not be negative");
  }
  require(stage.max_steps >= 0, path + ".max_steps", "must not be negative");
  require(stage.max_steps > 0 || stage.epochs > 0, path + ".epochs", "must be above 0 (or give max_steps)");
  require(stage.epochs <= 1e6, path + ".epochs", "is too large");
  require(stage.batch_size > 0 && stage.batch_size <= 1 << 20, path + ".batch_size",
          "must be in [1, 1048576]");
  require(stage.grad_accum > 0 && stage.grad_accum <= 1 << 20, path + ".grad_accum",
          "must be in [1, 1048576]");
  require(stage.max_length > 0, path + ".max_length", "must be above 0");
  require(stage.max_tokens_per_batch >= 0, path + ".max_tokens_per_batch", "must not be negative");
  require(stage.max_tokens_per_batch == 0 || stage.loss_normalisation == LossNormalisation::kToken,
          path + ".max_tokens_per_batch",
          "needs loss_normalisation: token (the cut into micro-batches must not matter)");
  require(stage.gradient_checkpointing.llm >= 0 && stage.gradient_checkpointing.llm <= 10000,
          path + ".gradient_checkpointing.llm", "must be in [0, 10000]: every k-th block, 0 none");
  require(!stage.gradient_checkpointing.offload || stage.gradient_checkpointing.llm > 0 ||
              stage.gradient_checkpointing.vision_tower,
          path + ".gradient_checkpointing.offload", "is for blocks that run again: set llm or vision_tower too");
  require(stage.dtype == "bfloat16" || stage.dtype == "float32" || stage.dtype == "float16", path + ".dtype",
          "must be bfloat16, float32 or float16");
  check_packing(stage, path);
  check_patterns(stage, path);
  check_optimiser(stage, path);
  check_preference(stage, path);
  check_guard(stage.guard, path);
  check_ema(stage.ema, path);
  if (stage.expected) check_expected(*stage.expected, path + ".expected");
  if (stage.validation) check_validation(*stage.validation, stage.ema, path + ".validation");
}

}  // namespace

TrainConfig train_config_from_json(const OrderedJson& json) {
  auto config = from_fields<TrainConfig>(json);
  require(!config.model.empty(), "model", "is missing: a folder or an installed model's name");
  require(!config.output.empty(), "output", "is missing: the folder of the run");
  require(config.save_steps >= 0 && config.save_total_limit >= 0, "save_steps, save_total_limit",
          "must not be negative");
  require(config.loader_threads >= 1 && config.loader_threads <= 256, "loader_threads",
          "must be in [1, 256]");
  require(config.max_bad_fraction >= 0 && config.max_bad_fraction <= 1, "max_bad_fraction",
          "must be in [0, 1]");
  if (config.quantization) check_quantization(*config.quantization, "quantization");
  const MediaLimitsConfig& media = config.media;
  require(media.num_frames >= 0 && media.num_frames <= 1 << 16, "media.num_frames",
          "must be in [0, 65536]");
  require(
      media.max_file_bytes > 0 && media.max_pixels > 0 && media.max_side > 0 && media.max_video_frames > 0,
      "media", "limits must be above 0");
  require(media.max_video_seconds >= 0, "media.max_video_seconds", "must not be negative");
  check_distributed(config.distributed);
  require(!config.stages.empty(), "stages", "at least one stage is needed");
  for (std::size_t i = 0; i < config.stages.size(); ++i)
    check_stage(config.stages[i], "stages." + std::to_string(i));
  for (const StageConfig& stage : config.stages)
    require(stage.dtype == config.stages.front().dtype, "stages",
            "all stages must have one dtype: the model stays loaded");
  return config;
}

TrainConfig read_train_config(const std::string& path, const std::vector<std::string>& assignments) {
  OrderedJson json = parse_yaml(read_file(path, std::size_t{4} << 20), path);
  for (const std::string& assignment : assignments) apply_assignment(json, assignment);
  TrainConfig config = with_context(path, [&] { return train_config_from_json(json); });
  for (StageConfig& stage : config.stages) {
    std::vector<DataSourceConfig*> sources;
    for (DataSourceConfig& source : stage.data) sources.push_back(&source);
    if (stage.validation)
      for (DataSourceConfig& source : stage.validation->data) sources.push_back(&source);
    for (DataSourceConfig* const entry : sources) {
      DataSourceConfig& source = *entry;
      const std::filesystem::path here = std::filesystem::path(path).parent_path();
      const auto resolve = [&](const std::string& name) {
        // A path that exists from where the command runs wins; else it is meant from the config's folder.
        const bool from_here = std::filesystem::path(name).is_relative() && !path_exists(name);
        return from_here && path_exists((here / name).string()) ? (here / name).lexically_normal().string()
                                                                : name;
      };
      source.path = resolve(source.path);
      if (!source.image_root.empty()) source.image_root = resolve(source.image_root);
    }
  }
  return config;
}

}  // namespace llava
