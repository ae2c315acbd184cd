#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

#include "config/stage_config.h"
#include "train/memory_plan.h"

namespace llava {

/// What a stage will do, before anything is trained.
struct StagePlan {
  std::string name;
  bool expected = false;  ///< counted with the stage's `expected`, not with its data
  std::int64_t samples = 0, samples_per_epoch = 0, samples_per_step = 0, steps = 0;
  std::int64_t trained_tower = 0, trained_connector = 0, trained_decoder = 0, trained_lora = 0;
  std::int64_t tokens_first_step = 0, padded_tokens_first_step = 0;  ///< 0 where the data are not here
  double tokens = 0, supervised_tokens = 0, views = 0;               ///< of the whole stage
  double flops = 0, recomputed_flops = 0;  ///< that the model needs; that gradient checkpointing adds
  double days = 0;
  std::int64_t micro_batch = 0;      ///< samples that one process works on at once, at most
  MemoryPlan memory;                 ///< of one process
  std::int64_t predicted_bytes = 0;  ///< its peak
  bool fits = true;
  std::string advice;  ///< what to change where it does not fit
};

struct RunPlan {
  std::string model;        ///< where its shapes are from
  bool model_here = false;  ///< false: by the config's `recipe`
  std::string device;
  double device_bytes = 0;  ///< 0: not known
  std::int64_t processes = 1;
  std::string strategy;
  double flops_per_second = 0;  ///< of dense products, one device; 0: not known
  double mfu = 0;               ///< part of it that is reckoned with
  std::vector<StagePlan> stages;
};

struct PlanOptions {
  std::int64_t processes = 1;
  std::string gpu;  ///< a name of accelerators.h; empty: `device` of this machine
  double mfu = 0.4;
  c10::Device device = c10::Device(c10::kCPU);
};

/// Steps, what trains, tokens, memory and time of a run's stages. Reads configs, and the data's first
/// samples where they are here; no weights. Error{kInput} where neither the model is here nor a `recipe`
/// named, or a stage's data are not here and it has no `expected`; {kUsage} for an unknown card.
RunPlan plan_run(const TrainConfig& config, const PlanOptions& options);

}  // namespace llava
