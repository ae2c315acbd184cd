#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "config/stage_config.h"
#include "train/trainer.h"

namespace llava::test {

/// A run on the tiny llava15 golden: model, data.json of the training golden, its template and
/// tokenisation.
TrainConfig tiny_config(const std::filesystem::path& golden, const std::filesystem::path& output);

struct RunResult {
  std::vector<StepMetrics> steps;
  std::map<std::string, at::Tensor> weights;  ///< copies of all parameters at the end
};

/// Runs a config; `stop_after` > 0 sets the stop flag after that many steps (the run must then end with
/// kStopped).
RunResult run(const TrainConfig& config, const std::string& resume = "", std::int64_t stop_after = 0,
              const std::function<void(LlavaModel&)>& on_stage_start = {}, const AnswerSampler& sampler = {});

}  // namespace llava::test
