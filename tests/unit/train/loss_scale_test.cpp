#include "train/loss_scale.h"

#include <torch/torch.h>

#include "support/golden.h"
#include "tiny_run.h"

namespace llava {
namespace {

TEST(LossScale, HalvesOnOverflowGrowsAfterGoodStepsAndEndsTheRunAtItsMinimum) {
  const LossScaleConfig config{.init = 8, .growth_interval = 3, .min = 2};
  LossScale scale{config.init, 0};
  scale.update(true, config);
  EXPECT_EQ(scale.scale, 4);
  for (int i = 0; i < 3; ++i) scale.update(false, config);
  EXPECT_EQ(scale.scale, 8);
  scale.update(false, config), scale.update(true, config);
  EXPECT_EQ(scale.good_steps, 0);
  scale.update(true, config);
  EXPECT_EQ(scale.scale, 2);
  EXPECT_THROW(scale.update(true, config), Error);
}

TEST(Float16, LearnsAsFloat32AndMovesNothingInAStepThatOverflows) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("float32"));
  StageConfig& stage = config.stages[0];
  stage.max_steps = 6;
  stage.schedule = {.name = ScheduleKind::kConstant, .warmup_ratio = 0};
  const auto exact = test::run(config);
  config.output = test::scratch_dir("float16").string(), stage.dtype = "float16";
  const auto half = test::run(config);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(half.steps[i].loss, exact.steps[i].loss, 0.02) << i;
  EXPECT_LT(half.steps[5].loss, half.steps[0].loss - 0.1);

  config.output = test::scratch_dir("overflow").string();
  stage.optim.loss_scale.init = 1e30, stage.max_steps = 2;
  std::map<std::string, at::Tensor> before;
  const auto stuck = test::run(config, "", 0, [&](LlavaModel& model) {
    for (const NamedParameter& p : model.parameters()) before[p.name] = p.tensor.clone();
  });
  for (const auto& [name, tensor] : stuck.weights) EXPECT_TRUE(at::equal(tensor, before.at(name))) << name;
}

}  // namespace
}  // namespace llava
