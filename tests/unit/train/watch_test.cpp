#include <torch/torch.h>

#include <cmath>
#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "formats/tensor_file.h"
#include "support/golden.h"
#include "tensor/convert.h"
#include "tiny_run.h"
#include "train/checkpoint.h"
#include "train/step_guard.h"
#include "train/validation.h"
#include "train/weight_averages.h"

namespace llava {
namespace {

namespace fs = std::filesystem;
using test::RunResult;

std::vector<Json> json_lines(const fs::path& path) {
  std::vector<Json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(Json::parse(line));
  return lines;
}

TEST(StepGuard, SkipsUpToTheLimitInARowAndAborts) {
  GuardConfig config{.on_nonfinite = NonfinitePolicy::kSkip, .max_nonfinite_skips = 2};
  GuardState state;
  const double nan = std::nan("");
  EXPECT_TRUE(judge_step(config, state, 1.0, 1.0).update);
  for (int i = 0; i < 2; ++i) {
    const StepVerdict verdict = judge_step(config, state, nan, 1.0);
    EXPECT_FALSE(verdict.update);
    EXPECT_FALSE(verdict.abort);
  }
  EXPECT_TRUE(judge_step(config, state, 1.0, 1.0).update) << "a good step starts the count anew";
  EXPECT_FALSE(judge_step(config, state, 1.0, INFINITY).abort);
  EXPECT_FALSE(judge_step(config, state, nan, nan).abort);
  EXPECT_TRUE(judge_step(config, state, nan, nan).abort);
  EXPECT_EQ(state.skipped, 5);
  config.on_nonfinite = NonfinitePolicy::kAbort;
  GuardState fresh;
  EXPECT_TRUE(judge_step(config, fresh, nan, 1.0).abort);
}

TEST(StepGuard, SeesSpikesOfLossOrNormOnceTheWindowIsThereAndAcceptsANewLevel) {
  const GuardConfig config{.spike_zscore = 4, .spike_policy = SpikePolicy::kSkip, .spike_window = 16};
  GuardState state;
  EXPECT_TRUE(judge_step(config, state, 50, 1).update) << "nothing to compare with yet";
  state = {};
  for (int i = 0; i < 20; ++i)
    EXPECT_TRUE(judge_step(config, state, 2 + 0.1 * (i % 3), 1 + 0.05 * (i % 2)).update);
  EXPECT_EQ(state.losses.size(), 16u);
  EXPECT_FALSE(judge_step(config, state, 9, 1).update);
  EXPECT_FALSE(judge_step(config, state, 2.1, 30).update) << "the norm alone";
  EXPECT_TRUE(judge_step(config, state, 0.01, 1).update) << "a low loss is no spike";
  EXPECT_EQ(state.spikes, 2);
  int refused = 0;
  for (int i = 0; i < 20; ++i) refused += judge_step(config, state, 9, 1).update ? 0 : 1;
  EXPECT_LT(refused, 5) << "a level that stays is no spike for ever";
  EXPECT_EQ(zscore({1, 1, 1}, 5), 0) << "a window that does not vary says nothing";
  EXPECT_NEAR(zscore({1, 3}, 5), 3, 1e-12);
}

TEST(EarlyStopping, CountsResultsWithoutABetterOneByMoreThanMinDelta) {
  const ValidationConfig config{.patience = 2, .min_delta = 0.1};
  ValidationState state;
  EXPECT_TRUE(note_result(config, state, 0, 10, 2.0));
  EXPECT_FALSE(note_result(config, state, 0, 20, 1.95)) << "better, but not by min_delta";
  EXPECT_FALSE(state.stop);
  EXPECT_TRUE(note_result(config, state, 0, 30, 1.8));
  EXPECT_FALSE(note_result(config, state, 0, 40, std::nan("")));
  EXPECT_FALSE(note_result(config, state, 0, 50, 1.9));
  EXPECT_TRUE(state.stop);
  EXPECT_EQ(state.best_step, 30);
  EXPECT_TRUE(note_result(config, state, 1, 60, 5.0)) << "another stage starts anew";
  EXPECT_FALSE(state.stop);
}

TEST(WeightAverages, FollowTheMastersAndGiveTheWeightsBackBitForBit) {
  at::manual_seed(1);
  const at::Tensor weight = at::randn({8}).to(at::kBFloat16), before = weight.clone();
  Optimizer optimizer({{"w", weight}}, {{"", 0.1}}, {});
  WeightAverages averages(optimizer, 0.75);
  at::Tensor expected = weight.to(at::kFloat);
  for (int step = 0; step < 5; ++step) {
    weight.mutable_grad() = at::randn({8}).to(at::kBFloat16);
    optimizer.collect_gradients();
    optimizer.step(1.0, optimizer.gradient_norm());
    averages.update();
    expected = 0.75 * expected + 0.25 * optimizer.parameters()[0].master.detach();
  }
  EXPECT_LE((averages.tensors()[0].tensor - expected).abs().max().item<double>(), 1e-6);
  const at::Tensor moved = weight.detach().clone();
  EXPECT_FALSE(at::equal(moved, before));
  {
    const WeightAverages::InPlace guard(averages);
    EXPECT_TRUE(at::equal(weight.detach(), averages.tensors()[0].tensor.to(at::kBFloat16)));
  }
  EXPECT_TRUE(at::equal(weight.detach(), moved));
}

/// Poisons the connector for one step: the loss of that step is NaN, the next ones are as usual.
void run_with_poison(Trainer*& trainer, const TrainConfig& config, RunResult& result) {
  TrainOptions options;
  options.on_step = [&](const StepMetrics& metrics) {
    result.steps.push_back(metrics);
    for (NamedParameter& p : trainer->model().parameters())
      if (p.name == "mm_projector.0.bias") {
        const at::NoGradGuard no_grad;
        if (metrics.step == 2) p.tensor[0] = std::nan("");
        if (metrics.step == 3) p.tensor[0] = 0;
      }
  };
  Trainer own(config, options);
  trainer = &own;
  own.run();
  for (const NamedParameter& p : own.model().parameters())
    result.weights[p.name] = p.tensor.detach().clone();
}

TEST(NonfiniteSteps, AreSkippedWithoutAnUpdateAndTheirSamplesNoted) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("skip_nan"));
  config.stages[0].max_steps = 6;
  config.stages[0].guard.on_nonfinite = NonfinitePolicy::kSkip;
  RunResult result;
  Trainer* trainer = nullptr;
  run_with_poison(trainer, config, result);
  ASSERT_EQ(result.steps.size(), 6u);
  for (int step = 0; step < 6; ++step) EXPECT_EQ(result.steps[step].skipped, step == 3) << step;
  for (const auto& [name, weight] : result.weights)
    EXPECT_TRUE(at::isfinite(weight).all().item<bool>()) << name;
  const std::vector<Json> bad = json_lines(fs::path(config.output) / "bad_steps.jsonl");
  ASSERT_EQ(bad.size(), 1u);
  EXPECT_EQ(bad[0]["step"], 3);
  EXPECT_EQ(bad[0]["action"], "skip");
  ASSERT_EQ(bad[0]["samples"].size(), 4u);
  EXPECT_NE(bad[0]["samples"][0]["sample"].get<std::string>().find("data.json"), std::string::npos);
  const std::vector<Json> metrics = json_lines(fs::path(config.output) / "metrics.jsonl");
  EXPECT_EQ(metrics[3].value("skipped", false), true);
  EXPECT_TRUE(metrics[3]["loss"].is_null()) << "JSON has no NaN";
}

TEST(Validation, ChangesNoBitOfTheRunAndItsLossIsTheStagesOnTheSameData) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("without"));
  StageConfig& stage = config.stages[0];
  stage.max_steps = 7;
  stage.batch_size = 8;  // a step is an epoch
  stage.lora = LoraSettings{.r = 4, .lora_alpha = 8, .dropout = 0.3};
  stage.lr = {{"", 1e-3}};
  const RunResult without = test::run(config);
  config.output = test::scratch_dir("with").string();
  stage.validation = ValidationConfig{.data = stage.data, .every_steps = 3, .batch_size = 3};
  stage.ema.ema_decay = 0.5;
  const RunResult with = test::run(config);
  ASSERT_EQ(with.weights.size(), without.weights.size());
  for (const auto& [name, tensor] : without.weights)
    EXPECT_TRUE(at::equal(tensor, with.weights.at(name))) << name;
  std::vector<Json> results;
  for (Json& line : json_lines(fs::path(config.output) / "metrics.jsonl"))
    if (line.contains("eval_loss")) results.push_back(line);
  ASSERT_EQ(results.size(), 3u);  // after 3, 6 and at the end
  EXPECT_EQ(results[1]["step"], 5);
  EXPECT_EQ(results[0]["eval_samples"], 8);
  EXPECT_EQ(results[0]["eval_tokens"], with.steps[0].supervised_tokens);
}

TEST(Validation, MeasuresTheLossTheNextStepStartsFrom) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("measured"));
  StageConfig& stage = config.stages[0];
  stage.max_steps = 4;
  stage.batch_size = 8;
  stage.validation = ValidationConfig{.data = stage.data, .every_steps = 1};
  std::vector<double> measured;
  TrainOptions options;
  RunResult result;
  options.on_step = [&](const StepMetrics& m) { result.steps.push_back(m); };
  options.on_validation = [&](const EvalMetrics& m) { measured.push_back(m.loss); };
  Trainer(config, options).run();
  for (int step = 0; step < 3; ++step)
    EXPECT_NEAR(measured[step], result.steps[step + 1].loss, 2e-6) << step;
}

TEST(Validation, StopsEarlyKeepsTheBestAndEndsWithItsWeights) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("early"));
  config.save_steps = 1;
  config.save_total_limit = 1;
  StageConfig& stage = config.stages[0];
  stage.max_steps = 40;
  stage.lr = {{"", 30.0}};  // far too high: it gets worse
  stage.schedule = {ScheduleKind::kConstant, 0.0, 0.0};
  stage.validation =
      ValidationConfig{.data = stage.data, .every_steps = 2, .patience = 3, .load_best_model_at_end = true};
  std::map<std::int64_t, double> measured;
  std::map<std::int64_t, at::Tensor> weights;
  TrainOptions options;
  Trainer* trainer = nullptr;
  options.on_validation = [&](const EvalMetrics& m) {
    measured[m.step + 1] = m.loss;
    for (const NamedParameter& p : trainer->model().parameters())
      if (p.name == "mm_projector.0.weight") weights[m.step + 1] = p.tensor.detach().clone();
  };
  Trainer own(config, options);
  trainer = &own;
  own.run();
  const auto best = std::min_element(measured.begin(), measured.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  ASSERT_EQ(measured.rbegin()->first, best->first + 6) << "three results after the best, every two steps";
  EXPECT_LT(measured.rbegin()->first, 40);
  const fs::path kept = fs::path(config.output) / fmt::format("checkpoint-{}", best->first);
  EXPECT_NO_THROW(verify_checkpoint(kept));
  for (const NamedParameter& p : own.model().parameters())
    if (p.name == "mm_projector.0.weight") {
      EXPECT_TRUE(at::equal(p.tensor, weights.at(best->first)));
      EXPECT_FALSE(at::equal(p.tensor, weights.rbegin()->second));
    }
}

TEST(EmaFinal, WritesTheAveragesAsTheModel) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("ema_final"));
  StageConfig& stage = config.stages[0];
  stage.max_steps = 3;
  stage.ema = {0.5, true};
  config.save_steps = 1;
  config.save_total_limit = 0;
  const RunResult result = test::run(config);
  const auto weight_at = [&](int step, const char* file) -> at::Tensor {
    const std::shared_ptr<const TensorFile> opened =
        open_safetensors(fs::path(config.output) / fmt::format("checkpoint-{}", step) / file);
    return to_tensor(*opened->find("mm_projector.0.weight"), opened).clone();
  };
  at::Tensor average = weight_at(1, "ema.safetensors");
  average = 0.5 * average + 0.5 * weight_at(2, "weights.safetensors");
  EXPECT_LE((average - weight_at(2, "ema.safetensors")).abs().max().item<double>(), 1e-7);
  EXPECT_FALSE(at::equal(weight_at(2, "ema.safetensors"), weight_at(2, "weights.safetensors")));
  const at::Tensor final_weight = result.weights.at("mm_projector.0.weight");
  EXPECT_TRUE(at::equal(final_weight, weight_at(3, "weights.safetensors")));
  EXPECT_FALSE(at::equal(final_weight, weight_at(2, "weights.safetensors")));
}

TEST(WatchConfig, RefusesWhatCannotWork) {
  const auto error = [](const std::string& stage) {
    try {
      train_config_from_json(parse_ordered_json(
          R"({"model": "m", "output": "o", "stages": [{"data": [{"path": "d"}], "train": ["x"], )" + stage +
              "}]}",
          "test"));
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(error(R"("ema_decay": 0.9, "on_nonfinite": "skip", "validation": {"data": [{"path": "v"}]})"),
            "");
  EXPECT_NE(error(R"("ema_decay": 1.0)").find("ema_decay"), std::string::npos);
  EXPECT_NE(error(R"("ema_final": true)").find("ema_decay"), std::string::npos);
  EXPECT_NE(error(R"("on_nonfinite": "skp")").find("on_nonfinite"), std::string::npos);
  EXPECT_NE(error(R"("spike_zcore": 4)").find("spike_zscore"), std::string::npos);
  EXPECT_NE(error(R"("validation": {"every_steps": 5})").find("validation.data"), std::string::npos);
  EXPECT_NE(error(R"("validation": {"data": [{"path": "v"}], "patienc": 5})").find("patience"),
            std::string::npos);
  EXPECT_NE(error(R"("validation": {"data": [{"path": "v"}], "use_ema": true})").find("use_ema"),
            std::string::npos);
}

}  // namespace
}  // namespace llava
