#include <torch/torch.h>

#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "support/golden.h"
#include "tiny_run.h"

namespace llava {
namespace {

namespace fs = std::filesystem;
using test::RunResult;

/// Two stages with everything that has state: shuffling, LoRA with dropout, accumulation, bfloat16 masters; packed
/// rows and recomputed blocks among them.
TrainConfig two_stages(const fs::path& golden, const fs::path& output, const std::string& dtype) {
  TrainConfig config = test::tiny_config(golden, output);
  config.seed = 11;
  config.save_total_limit = 0;
  StageConfig& first = config.stages[0];
  first.max_steps = 4;
  first.batch_size = 2;
  first.grad_accum = 2;
  first.sampler = SamplerKind::kLength;
  first.dtype = dtype;
  StageConfig second = first;
  second.max_steps = 6;
  second.sampler = SamplerKind::kRandom;
  second.packing = true, second.packing_length = 150;
  second.gradient_checkpointing = {1, true};
  second.lora = LoraSettings{.r = 4, .lora_alpha = 8, .dropout = 0.2};
  config.stages.push_back(second);
  return config;
}

void expect_same_bits(const RunResult& a, const RunResult& b) {
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (const auto& [name, tensor] : a.weights) EXPECT_TRUE(at::equal(tensor, b.weights.at(name))) << name;
}

Json without_times(const std::string& line) {
  Json json = Json::parse(line), kept = Json::object();
  for (const auto& [key, value] : json.items())
    if (key.find("second") == std::string::npos && key.find("data_wait") == std::string::npos &&
        key != "peak_memory_bytes" && key != "mfu" && key != "hfu")
      kept[key] = value;
  return kept;
}

std::vector<Json> metrics_of(const fs::path& output) {
  std::vector<Json> lines;
  std::ifstream file(output / "metrics.jsonl");
  for (std::string line; std::getline(file, line);) lines.push_back(without_times(line));
  return lines;
}

struct ResumeCase {
  const char* dtype;
  std::int64_t loader_threads;
};

class Resume : public testing::TestWithParam<ResumeCase> {};

TEST_P(Resume, AnInterruptedRunEqualsAnUninterruptedOneBitForBit) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const fs::path straight = test::scratch_dir("straight"), broken = test::scratch_dir("broken");
  const RunResult whole = test::run(two_stages(train.parent_path(), straight, GetParam().dtype));
  TrainConfig config = two_stages(train.parent_path(), broken, GetParam().dtype);
  config.loader_threads = GetParam().loader_threads;
  test::run(config, "", 3);      // within stage 0
  test::run(config, "auto", 3);  // two steps into stage 1
  const RunResult resumed = test::run(config, "auto");
  expect_same_bits(whole, resumed);
  EXPECT_EQ(metrics_of(straight), metrics_of(broken));
  EXPECT_EQ(metrics_of(broken).size(), 10u);
  EXPECT_EQ(read_file(straight / "final/model.safetensors"), read_file(broken / "final/model.safetensors"));
}

/// Forty steps with all that has state, averages and a window of losses included; the break is in the
/// middle of an epoch (8 records, 3 a step).
TEST_P(Resume, FortyStepsEqualTwentyAndTwentyMore) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const auto config_of = [&](const char* name) {
    TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir(name));
    config.seed = 5;
    config.loader_threads = GetParam().loader_threads;
    StageConfig& stage = config.stages[0];
    stage.max_steps = 40;
    stage.batch_size = 1;
    stage.grad_accum = 3;
    stage.dtype = GetParam().dtype;
    stage.sampler = SamplerKind::kRandom;
    stage.lora = LoraSettings{.r = 4, .lora_alpha = 8, .dropout = 0.3};
    stage.ema.ema_decay = 0.9;
    stage.guard.spike_zscore = 3;
    stage.guard.spike_window = 16;
    stage.validation = ValidationConfig{.data = stage.data, .every_steps = 15, .max_samples = 3};
    return config;
  };
  const TrainConfig straight = config_of("forty"), broken = config_of("twenty");
  const RunResult whole = test::run(straight);
  test::run(broken, "", 20);
  const RunResult resumed = test::run(broken, "auto");
  expect_same_bits(whole, resumed);
  EXPECT_EQ(metrics_of(straight.output), metrics_of(broken.output));
  EXPECT_EQ(metrics_of(broken.output).size(), 43u) << "40 steps and 3 validations";
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Resume,
                         testing::Values(ResumeCase{"float32", 1}, ResumeCase{"bfloat16", 3}),
                         [](const auto& test_case) { return std::string(test_case.param.dtype); });

TEST(ResumedRun, SkipsADamagedCheckpointAndDropsMetricsPastTheOneBefore) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const fs::path straight = test::scratch_dir("sound"), broken = test::scratch_dir("damaged");
  TrainConfig config = test::tiny_config(train.parent_path(), straight);
  config.stages[0].max_steps = 6;
  const RunResult whole = test::run(config);
  config.output = broken.string();
  config.save_steps = 2;
  test::run(config, "", 5);  // checkpoints 2, 4 and 5
  EXPECT_FALSE(fs::exists(broken / "checkpoint-2")) << "save_total_limit keeps two";
  fs::resize_file(broken / "checkpoint-5/optimizer.safetensors", 100);
  fs::create_directories(broken / "checkpoint-9");  // an empty folder is no checkpoint either
  const RunResult resumed = test::run(config, "auto");
  EXPECT_EQ(resumed.steps.front().step, 4);
  expect_same_bits(whole, resumed);
  EXPECT_EQ(metrics_of(straight), metrics_of(broken));
}

TEST(ResumedRun, RefusesToStartAnewOverARun) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("again"));
  config.stages[0].max_steps = 2;
  test::run(config);
  EXPECT_THROW(test::run(config), Error);
  EXPECT_THROW(test::run(config, (fs::path(config.output) / "checkpoint-77").string()), Error);
}

TEST(ResumedRun, SaysWhichTensorsAChangedConfigMisses) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("changed"));
  test::run(config, "", 2);
  config.stages[0].train = {"^mm_projector\\.", "^lm_head\\."};
  try {
    test::run(config, "auto");
    FAIL() << "resumed with other trained parameters";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("lm_head.weight"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace llava
