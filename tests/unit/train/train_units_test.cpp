#include <torch/torch.h>

#include <fstream>
#include <regex>

#include "base/error.h"
#include "support/golden.h"
#include "tiny_run.h"
#include "train/metrics.h"
#include "train/schedule.h"
#include "train/stage_setup.h"

namespace llava {
namespace {

TEST(ScheduleMultiplier, WarmsUpFromZeroAndDecays) {
  ScheduleConfig s{.name = ScheduleKind::kCosine, .warmup_ratio = 0.1};
  EXPECT_EQ(schedule_multiplier(s, 0, 20), 0.0);
  EXPECT_EQ(schedule_multiplier(s, 1, 20), 0.5);
  EXPECT_EQ(schedule_multiplier(s, 2, 20), 1.0);
  EXPECT_NEAR(schedule_multiplier(s, 11, 20), 0.5, 1e-12);
  EXPECT_NEAR(schedule_multiplier(s, 20, 20), 0.0, 1e-12);
  s.name = ScheduleKind::kLinear;
  EXPECT_NEAR(schedule_multiplier(s, 11, 20), 0.5, 1e-12);
  s.min_ratio = 0.2;
  EXPECT_NEAR(schedule_multiplier(s, 20, 20), 0.2, 1e-12);
  s.name = ScheduleKind::kConstant;
  EXPECT_EQ(schedule_multiplier(s, 19, 20), 1.0);
  s.name = ScheduleKind::kWsd, s.decay_ratio = 0.5;
  EXPECT_EQ(schedule_multiplier(s, 11, 20), 1.0);
  EXPECT_NEAR(schedule_multiplier(s, 20, 20), 0.2, 1e-12);
  EXPECT_EQ(schedule_multiplier({.name = ScheduleKind::kCosine, .warmup_ratio = 0.03}, 0, 10), 0.0)
      << "ceil(0.3) = 1 warm-up step";
  EXPECT_EQ(schedule_multiplier({.name = ScheduleKind::kCosine, .warmup_ratio = 0.0}, 0, 10), 1.0);
}

TEST(CutMicroBatches, KeepsOrderWithoutABudgetAndFillsOneByLength) {
  using Batches = std::vector<std::vector<std::size_t>>;
  EXPECT_EQ(cut_micro_batches({5, 9, 2, 7, 3}, 2, 0), (Batches{{0, 1}, {2, 3}, {4}}));
  EXPECT_EQ(cut_micro_batches({5, 9, 2, 7, 3}, 2, 15), (Batches{{1}, {3, 0}, {4, 2}}));
  EXPECT_EQ(cut_micro_batches({50, 4, 4, 4}, 4, 12), (Batches{{0}, {1, 2, 3}}));
}

TEST(CutPacks, FillsRowsBestFitFirstAndKeepsEverySample) {
  using Batches = std::vector<std::vector<std::size_t>>;
  EXPECT_EQ(cut_packs({5, 9, 2, 7, 3}, 10), (Batches{{1}, {3, 4}, {0, 2}}));
  EXPECT_EQ(cut_packs({50, 4, 4, 4}, 12), (Batches{{0}, {1, 2, 3}})) << "too long a sample stands alone";
  EXPECT_EQ(cut_packs({}, 12), Batches{});
}

/// AdamW against torch::optim::AdamW on the same gradients.
TEST(AdamW, EqualsTorchsOverManySteps) {
  at::manual_seed(3);
  const at::Tensor ours = at::randn({31, 17}), theirs = ours.clone().requires_grad_(true);
  Optimizer optimizer({{"a.weight", ours}}, {{"", 1e-2}}, {.weight_decay = {{"", 0.1}}, .max_grad_norm = 0.0});
  torch::optim::AdamW reference({theirs}, torch::optim::AdamWOptions(1e-2).weight_decay(0.1));
  for (int step = 0; step < 30; ++step) {
    const at::Tensor grad = at::randn({31, 17});
    ours.mutable_grad() = grad.clone();
    theirs.mutable_grad() = grad.clone();
    optimizer.collect_gradients();
    optimizer.step(1.0, optimizer.gradient_norm());
    reference.step();
  }
  EXPECT_LE((ours - theirs).abs().max().item<double>(), 1e-6);
}

TEST(AdamW, SumsLowPrecisionGradientsInFloat32AndKeepsMasters) {
  const at::Tensor weight = at::full({4}, 1.0, at::kBFloat16);
  Optimizer optimizer({{"w", weight}}, {{"", 1e-4}}, {});
  for (int micro = 0; micro < 3; ++micro) {
    weight.mutable_grad() = at::full({4}, micro == 0 ? 1.0 : 1.0 / 512, at::kBFloat16);
    optimizer.collect_gradients();
  }
  EXPECT_NEAR(optimizer.gradient_norm(), 2 * (1 + 2.0 / 512), 1e-6);
  optimizer.step(1.0, 0.5);
  EXPECT_EQ(weight[0].item<float>(), 1.0f) << "a step below half a bfloat16 unit rounds back";
  EXPECT_NEAR(optimizer.parameters()[0].master[0].item<float>(), 1.0f - 1e-4f, 1e-6);
  for (int step = 0; step < 60; ++step) {
    weight.mutable_grad() = at::full({4}, 1.0, at::kBFloat16);
    optimizer.collect_gradients();
    optimizer.step(1.0, 0.5);
  }
  EXPECT_LT(weight[0].item<float>(), 1.0f) << "but the master moves on";
}

TEST(AdamW, ClipsByTheGlobalNormAndSkipsWhatGotNoGradient) {
  const at::Tensor a = at::zeros({1}), b = at::zeros({1}), idle = at::ones({1});
  Optimizer optimizer({{"a", a}, {"b", b}, {"idle", idle}}, {{"b", 2e-3}, {"", 1e-3}},
                  {.weight_decay = {{"", 0.5}}, .max_grad_norm = 1.0});
  a.mutable_grad() = at::full({1}, 3.0);
  b.mutable_grad() = at::full({1}, 4.0);
  optimizer.collect_gradients();
  EXPECT_NEAR(optimizer.gradient_norm(), 5.0, 1e-6);
  optimizer.step(1.0, 5.0);
  EXPECT_NEAR(optimizer.parameters()[0].state.at("exp_avg").item<double>(), 0.1 * 3.0 / 5.0, 1e-6);
  EXPECT_NEAR(b.item<double>() / a.item<double>(), 2.0, 1e-3);
  EXPECT_EQ(idle.item<double>(), 1.0) << "no gradient: no decay either, as in torch";
  EXPECT_THROW(Optimizer({{"c", at::zeros({1})}}, {{"^x", 1.0}}, {}), Error);
}

TEST(LoraPattern, StaysWithinThePartThatIsMeant) {
  const std::regex both(lora_pattern({.target = "(q|v)_proj", .tower_target = "fc1"}));
  EXPECT_TRUE(std::regex_search("language_model.layers.0.self_attn.q_proj", both));
  EXPECT_FALSE(std::regex_search("vision_tower.encoder.layers.0.self_attn.q_proj", both));
  EXPECT_TRUE(std::regex_search("vision_tower.encoder.layers.0.mlp.fc1", both));
  const std::regex anchored(lora_pattern({.target = "^language_model\\.layers\\.1\\..*v_proj$"}));
  EXPECT_TRUE(std::regex_search("language_model.layers.1.self_attn.v_proj", anchored));
  EXPECT_FALSE(std::regex_search("language_model.layers.11.self_attn.v_proj", anchored));
}

TEST(MetricsWriter, DropsLinesOfStepsThatWillBeRunAgain) {
  const auto folder = test::scratch_dir("metrics");
  const auto file = folder / "metrics.jsonl";
  {
    MetricsWriter writer(folder, 0, false);
    for (int step = 0; step < 5; ++step) writer.write({.step = step, .loss = 1.0});
  }
  std::ofstream(file, std::ios::app) << "{\"step\": 5, \"lo";  // torn
  {
    MetricsWriter writer(folder, 3, false);
    writer.write({.step = 3, .loss = 2.0});
  }
  std::ifstream in(file);
  std::vector<Json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[3]["loss"], 2.0);
  for (const char* key : {"step", "loss", "grad_norm", "lr", "tokens", "supervised_tokens", "images",
                          "step_seconds", "data_wait_seconds", "peak_memory_bytes", "mfu", "hfu", "samples",
                          "grad_norm_clipped", "clip_coefficient", "samples_per_second",
                          "images_per_second", "tokens_per_second", "supervised_tokens_per_second"})
    EXPECT_TRUE(lines[0].contains(key)) << key;
}

}  // namespace
}  // namespace llava
