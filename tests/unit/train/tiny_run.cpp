#include "tiny_run.h"

#include <torch/torch.h>

#include "base/error.h"

namespace llava::test {

TrainConfig tiny_config(const std::filesystem::path& golden, const std::filesystem::path& output) {
  TrainConfig config;
  config.model = (golden / "checkpoints/llava15").string();
  config.output = output.string();
  config.save_steps = 0;
  StageConfig stage;
  stage.data = {{(golden / "train/data.json").string(), "", 1.0, 0}};
  stage.train = {"^mm_projector\\."};
  stage.lr = {{"", 1e-3}};
  stage.chat_template = "user_assistant";
  stage.tokenisation = TokenisationMode::kSegments;
  stage.max_steps = 20;
  stage.batch_size = 4;
  stage.optim.weight_decay = {{"", 0.01}};
  stage.schedule.warmup_ratio = 0.1;
  stage.sampler = SamplerKind::kSequential;
  stage.dtype = "float32";
  config.stages = {stage};
  return config;
}

RunResult run(const TrainConfig& config, const std::string& resume, std::int64_t stop_after,
              const std::function<void(LlavaModel&)>& on_stage_start, const AnswerSampler& sampler) {
  RunResult result;
  std::atomic<bool> stop = false;
  TrainOptions options;
  options.resume = resume;
  options.stop = &stop;
  options.on_stage_start = on_stage_start;
  options.sampler = sampler;
  options.on_step = [&](const StepMetrics& metrics) {
    result.steps.push_back(metrics);
    if (stop_after > 0 && static_cast<std::int64_t>(result.steps.size()) == stop_after) stop = true;
  };
  Trainer trainer(config, options);
  bool stopped = false;
  try {
    trainer.run();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kStopped) throw;
    stopped = true;
  }
  EXPECT_EQ(stopped, stop_after > 0);
  for (const NamedParameter& p : trainer.model().parameters())
    result.weights[p.name] = p.tensor.detach().clone();
  return result;
}

}  // namespace llava::test
