// Whole KTO and GRPO runs against TRL's, and the resumption of drawing.
#include <torch/torch.h>

#include <filesystem>

#include "base/error.h"
#include "preference_golden.h"
#include "support/golden.h"

namespace llava {
namespace {

namespace fs = std::filesystem;
using test::expect_equal_bits;
using test::expect_equal_pairs;
using test::expect_equal_steps;
using test::Golden;
using test::open_golden;
using test::preference_config;
using test::run_keeping_pairs;
using test::RunResult;
using test::settings_of;

TEST(KtoRun, TwentyStepsEqualTrl) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  const Json& run = golden.report["kto"]["kto"];
  for (const bool precompute : {false, true}) {
    TrainConfig config = preference_config(golden, test::scratch_dir("kto"), Objective::kKto);
    StageConfig& stage = config.stages[0];
    stage.data = {{(folder / "kto.json").string(), (golden.root / "train").string(), 1.0, 0}};
    stage.preference =
        settings_of<PreferenceConfig>(run, {"beta", "desirable_weight", "undesirable_weight"});
    stage.preference->precompute_ref_log_probs = precompute;
    stage.lr = {{"", run["config"]["learning_rate"].get<double>()}};
    const RunResult ours = run_keeping_pairs(config, golden);
    expect_equal_steps(ours, run["steps"], "kto");
    expect_equal_pairs(ours.weights, golden, "kto/kto");
  }
}

/// A sampler that says what TRL sampled.
AnswerSampler recorded(const Json& steps, std::size_t& step) {
  return [&steps, &step](LlavaModel&, const Tokenizer&, std::span<const CollateRow> rows,
                         const SamplingParams&) {
    const Json& rollout = steps[step++]["rollout"];
    std::vector<DrawnAnswer> answers;
    EXPECT_EQ(rollout["completion_ids"].size(), rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!rollout["prompt_ids"].is_null()) {
        EXPECT_EQ(rows[i].prompt->ids, rollout["prompt_ids"][i].get<std::vector<std::int64_t>>()) << i;
      }
      DrawnAnswer answer{rollout["completion_ids"][i].get<std::vector<std::int64_t>>(), -1, false,
                         rollout["text"][i].get<std::string>()};
      if (answer.ids.back() == 2) answer.ids.pop_back(), answer.stop_id = 2, answer.ended = true;
      answers.push_back(std::move(answer));
    }
    return answers;
  };
}

TrainConfig grpo_config(const Golden& golden, const Json& run, const fs::path& output) {
  TrainConfig config = preference_config(golden, output, Objective::kGrpo);
  StageConfig& stage = config.stages[0];
  stage.data[0].limit = 6;  // TRL leaves the last half group of prompts out
  stage.batch_size = 2;
  stage.lr = {{"", run["config"]["learning_rate"].get<double>()}};
  stage.grpo = settings_of<GrpoConfig>(
      run, {"beta", "loss_type", "scale_rewards", "num_generations", "max_completion_length",
            "reward_weights", "reward_length", "reward_regex"});
  stage.grpo->reward_funcs = {"length", "format"};
  return config;
}

TEST(GrpoRun, TwentyStepsOnTrlsCompletionsEqualTrl) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  for (const char* name : {"dapo", "grpo", "dr_grpo"}) {
    const Json& run = golden.report["grpo"][name];
    std::size_t step = 0;
    const RunResult ours = run_keeping_pairs(grpo_config(golden, run, test::scratch_dir("grpo")), golden,
                                             recorded(run["steps"], step));
    expect_equal_steps(ours, run["steps"], name);
    expect_equal_pairs(ours.weights, golden, std::string("grpo/") + name);
  }
}

/// Draws ids from the seed alone.
std::vector<DrawnAnswer> seeded_answers(LlavaModel& model, const Tokenizer& tokenizer,
                                        std::span<const CollateRow> rows, const SamplingParams& params) {
  EXPECT_FALSE(at::GradMode::is_enabled());
  std::vector<DrawnAnswer> answers;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const std::uint64_t draw = (params.seed + r) % 1000;
    std::vector<std::int64_t> ids;
    for (std::uint64_t i = 0; i < 1 + draw % 5; ++i)
      ids.push_back(static_cast<std::int64_t>(300 + (draw * (i + 7)) % 1500));
    answers.push_back({ids, 2, true, tokenizer.decode(ids)});
  }
  EXPECT_GT(model.config().decoder.vocab_size, 1800);
  return answers;
}

TEST(GrpoRun, ResumedDrawsTheSameAnswersAndEndsWithTheSameBits) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  TrainConfig config =
      grpo_config(golden, golden.report["grpo"]["dapo"], test::scratch_dir("grpo_straight"));
  StageConfig& stage = config.stages[0];
  stage.max_steps = 6;
  stage.sampler = SamplerKind::kRandom;
  stage.grpo->mask_truncated_completions = true;
  const RunResult whole = test::run(config, "", 0, {}, seeded_answers);
  config.output = test::scratch_dir("grpo_broken").string();
  test::run(config, "", 3, {}, seeded_answers);
  const RunResult resumed = test::run(config, "auto", 0, {}, seeded_answers);
  expect_equal_bits(whole, resumed);
  EXPECT_EQ(whole.steps.back().extra, resumed.steps.back().extra);
  EXPECT_NE(whole.steps[4].extra.at("completions/mean_length"),
            whole.steps[5].extra.at("completions/mean_length"));
}

TEST(GrpoRun, WithoutADecoderIsRefused) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  EXPECT_THROW(
      test::run(grpo_config(golden, golden.report["grpo"]["dapo"], test::scratch_dir("grpo_none"))), Error);
}

}  // namespace
}  // namespace llava
