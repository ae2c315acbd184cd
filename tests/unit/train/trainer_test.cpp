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

std::string error_of(const TrainConfig& config, ErrorKind kind) {
  try {
    test::run(config);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    return e.what();
  }
  return "";
}

void expect_close_losses(const RunResult& a, const RunResult& b, double tolerance) {
  ASSERT_EQ(a.steps.size(), b.steps.size());
  for (std::size_t i = 0; i < a.steps.size(); ++i)
    EXPECT_NEAR(a.steps[i].loss, b.steps[i].loss, tolerance) << i;
}

TEST(Trainer, AccumulationAndTokenBudgetsEqualOneLargeBatch) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("whole"));
  config.stages[0].max_steps = 6;
  const RunResult whole = test::run(config);
  config.output = test::scratch_dir("accumulated").string();
  config.stages[0].batch_size = 1;
  config.stages[0].grad_accum = 4;
  expect_close_losses(test::run(config), whole, 1e-5);
  config.output = test::scratch_dir("budget").string();
  config.stages[0].batch_size = 4;
  config.stages[0].grad_accum = 1;
  config.stages[0].max_tokens_per_batch = 200;
  expect_close_losses(test::run(config), whole, 1e-5);
}

TEST(Trainer, PackedRowsGiveTheSameLossesAlsoFromCachedFeatures) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("padded"));
  config.stages[0].max_steps = 6;
  config.stages[0].feature_cache = FeatureCacheMode::kOff;
  const RunResult padded = test::run(config);
  for (const auto cache : {FeatureCacheMode::kOff, FeatureCacheMode::kAuto})
    for (const std::int64_t length : {0, 150}) {
      config.output = test::scratch_dir("packed").string();
      config.stages[0].packing = true, config.stages[0].packing_length = length;
      config.stages[0].feature_cache = cache;
      expect_close_losses(test::run(config), padded, 1e-5);
    }
}

TEST(Trainer, MicroBatchNormalisationIsTheMeanOfTheMeans) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("by_token"));
  config.stages[0].max_steps = 1;
  config.stages[0].batch_size = 1;
  double mean = 0;
  for (int i = 0; i < 4; ++i) {
    config.stages[0].data[0].limit = i + 1;
    config.stages[0].batch_size = i + 1;
    config.output = test::scratch_dir("single" + std::to_string(i)).string();
    const StepMetrics m = test::run(config).steps[0];
    const double sum = m.loss * static_cast<double>(m.supervised_tokens);
    static double last_sum = 0, last_tokens = 0;
    if (i == 0) last_sum = last_tokens = 0;
    mean += (sum - last_sum) / (static_cast<double>(m.supervised_tokens) - last_tokens) / 4;
    last_sum = sum;
    last_tokens = static_cast<double>(m.supervised_tokens);
  }
  config.output = test::scratch_dir("micro").string();
  config.stages[0].batch_size = 1;
  config.stages[0].grad_accum = 4;
  config.stages[0].loss_normalisation = LossNormalisation::kMicroBatch;
  EXPECT_NEAR(test::run(config).steps[0].loss, mean, 1e-4);
}

TEST(Trainer, CachedFeaturesGiveTheSameLossesAsPixels) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("cached"));
  config.stages[0].max_steps = 4;
  const RunResult cached = test::run(config);
  config.stages[0].feature_cache = FeatureCacheMode::kOff;
  config.output = test::scratch_dir("pixels").string();
  expect_close_losses(test::run(config), cached, 1e-5);
  config.stages[0].feature_cache = FeatureCacheMode::kAuto;
  config.feature_cache_bytes = 100;  // too small: pixels again
  config.output = test::scratch_dir("small_cache").string();
  expect_close_losses(test::run(config), cached, 1e-5);
}

TEST(Trainer, AnswerEmbeddingTrainsTheConnectorAlone) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("answer_embedding"));
  config.stages[0].objective = Objective::kAnswerEmbedding;
  config.stages[0].max_steps = 12;
  config.stages[0].schedule = {ScheduleKind::kConstant, 0.0, 0.0};
  const RunResult run = test::run(config);
  EXPECT_LT(run.steps[10].loss, run.steps[0].loss);
  EXPECT_LT(run.steps[11].loss, run.steps[1].loss);
}

TEST(Trainer, EightBitProductsWithFrozenWeightsTrainLoraAlmostAsFloat) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("float_products"));
  config.stages[0].train = {"lora_"};
  config.stages[0].lr = {{"", 5e-3}};
  config.stages[0].lora = LoraSettings{.r = 4, .lora_alpha = 8};
  config.stages[0].max_steps = 12;
  const RunResult plain = test::run(config);
  config.output = test::scratch_dir("int8_products").string();
  config.stages[0].frozen_compute = FrozenCompute::kInt8;
  const RunResult rounded = test::run(config);
  ASSERT_EQ(rounded.steps.size(), 12U);
  EXPECT_NE(rounded.steps[0].loss, plain.steps[0].loss);
  expect_close_losses(rounded, plain, 0.02 * plain.steps[0].loss);
  for (const auto& [name, weight] : plain.weights)  // the others had their pairs merged when the run ended
    if (name.find("_proj") == std::string::npos) {
      EXPECT_TRUE(at::equal(rounded.weights.at(name), weight)) << name;
    }
}

TEST(Trainer, ReplacesAFewBadSamplesAndStopsAtManyOnes) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const fs::path folder = test::scratch_dir("bad_samples");
  Json data = read_json_file(train / "data.json");
  data[1]["image"] = "images/none.png";
  data[2].erase("conversations");
  std::ofstream(folder / "data.json") << data.dump();
  TrainConfig config = test::tiny_config(train.parent_path(), folder / "out");
  config.stages[0].data[0].path = (folder / "data.json").string();
  config.stages[0].data[0].image_root = train.string();
  config.stages[0].max_steps = 6;
  const RunResult first = test::run(config);
  config.output = (folder / "again").string();
  expect_close_losses(test::run(config), first, 0);
  config.output = (folder / "many").string();
  config.stages[0].max_steps = 20;
  const std::string message = error_of(config, ErrorKind::kInput);
  EXPECT_NE(message.find("could not be used"), std::string::npos) << message;
  EXPECT_NE(message.find("record"), std::string::npos) << message;
}

TEST(Trainer, StopsBeforeAnUpdateWithALossThatIsNotFinite) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("nan"));
  const auto poison = [](LlavaModel& model) {
    for (NamedParameter& p : model.parameters())
      if (p.name == "mm_projector.0.bias") p.tensor.fill_(std::nan(""));
  };
  try {
    test::run(config, "", 0, poison);
    FAIL() << "trained on NaN";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("not finite"), std::string::npos) << e.what();
  }
  for (const auto& entry : fs::directory_iterator(config.output))
    EXPECT_NE(entry.path().filename().string().rfind("checkpoint-", 0), 0u) << entry.path();
}

TEST(Trainer, PlansWithoutWritingOrTraining) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const fs::path output = test::scratch_dir("planned") / "never";
  TrainConfig config = test::tiny_config(train.parent_path(), output);
  config.stages[0].max_steps = 0;
  config.stages[0].epochs = 3;
  const std::vector<StagePlan> plans = plan_run(config, {}).stages;
  ASSERT_EQ(plans.size(), 1u);
  EXPECT_EQ(plans[0].steps, 6);
  EXPECT_EQ(plans[0].samples, 8);
  EXPECT_EQ(plans[0].trained_connector, 48 * 64 + 64 + 64 * 64 + 64);
  EXPECT_EQ(plans[0].trained_decoder + plans[0].trained_tower + plans[0].trained_lora, 0);
  EXPECT_GT(plans[0].tokens_first_step, 4 * 64);
  EXPECT_GT(plans[0].predicted_bytes, 0);
  Trainer(config, {}).dry_run();
  EXPECT_FALSE(fs::exists(output));
}

TEST(Trainer, NamesPatternsThatFindNothing) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("no_match"));
  config.stages[0].train = {"^mm_projektor\\."};
  EXPECT_NE(error_of(config, ErrorKind::kInput).find("mm_projektor"), std::string::npos);
  config.stages[0].train = {"^mm_projector\\."};
  config.stages[0].lr = {{"^language_model", 1e-3}};
  EXPECT_NE(error_of(config, ErrorKind::kInput).find("mm_projector"), std::string::npos);
}

}  // namespace
}  // namespace llava
