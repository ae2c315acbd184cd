// Whole DPO runs against TRL's, their reference and resumption.
#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "config/branch.h"
#include "loader/load_model.h"
#include "preference_golden.h"
#include "support/golden.h"
#include "tensor/convert.h"
#include "train/dpo_objective.h"

namespace llava {
namespace {

namespace fs = std::filesystem;
using test::expect_equal_bits;
using test::expect_equal_pairs;
using test::expect_equal_steps;
using test::Golden;
using test::kRunTolerance;
using test::open_golden;
using test::preference_config;
using test::run_keeping_pairs;
using test::RunResult;
using test::settings_of;

TrainConfig dpo_config(const Golden& golden, const std::string& name, const std::string& scratch) {
  const Json& run = golden.report["dpo"][name];
  TrainConfig config = preference_config(golden, test::scratch_dir(scratch), Objective::kDpo);
  StageConfig& stage = config.stages[0];
  stage.preference =
      settings_of<PreferenceConfig>(run, {"beta", "loss_type", "loss_weights", "label_smoothing"});
  stage.lr = {{"", run["config"]["learning_rate"].get<double>()}};
  if (run["config"]["train"] == "full") {
    stage.lora.reset();
    stage.train = {"^mm_projector\\.", "^language_model\\.", "^lm_head\\."};
  }
  return config;
}

class DpoParity : public testing::TestWithParam<const char*> {};

TEST_P(DpoParity, TwentyStepsEqualTrl) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  const std::string name = GetParam();
  const TrainConfig config = dpo_config(golden, name, "dpo_" + name);
  const RunResult run = run_keeping_pairs(config, golden);
  expect_equal_steps(run, golden.report["dpo"][name]["steps"], name);
  if (config.stages[0].lora) return expect_equal_pairs(run.weights, golden, "dpo/" + name);
  for (const auto& [ours, theirs] :
       {std::pair{"mm_projector.0.weight", "model.multi_modal_projector.linear_1.weight"},
        std::pair{"language_model.layers.0.self_attn.q_proj.weight",
                  "model.language_model.layers.0.self_attn.q_proj.weight"}}) {
    const TensorView* view = golden.tensors->find("dpo/" + name + "/" + theirs);
    ASSERT_NE(view, nullptr) << theirs;
    EXPECT_LE((run.weights.at(ours) - to_tensor(*view, golden.tensors)).abs().max().item<double>(),
              kRunTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, DpoParity,
                         testing::Values("sigmoid", "sigmoid_full", "robust", "ipo", "hinge",
                                         "sigmoid_sft"));

TEST(DpoRun, TheFirstLossOfNewPairsIsLogTwo) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  for (const char* dtype : {"float32", "bfloat16"}) {
    TrainConfig config = dpo_config(golden, "sigmoid", "dpo_first");
    config.stages[0].max_steps = 1;
    config.stages[0].dtype = dtype;
    const RunResult run = test::run(config);
    EXPECT_NEAR(run.steps[0].loss, std::log(2.0), 1e-6) << dtype;
    EXPECT_EQ(run.steps[0].extra.at("rewards/margins"), 0.0) << dtype;
    EXPECT_EQ(run.steps[0].images, 4) << "a pair's image counts once";
  }
}

TEST(DpoRun, RpoAlphaIsTheWeightOfTheLossSft) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  TrainConfig config = dpo_config(golden, "sigmoid", "dpo_rpo");
  config.stages[0].preference->rpo_alpha = 0.5;
  expect_equal_steps(run_keeping_pairs(config, golden), golden.report["dpo"]["sigmoid_sft"]["steps"],
                     "rpo");
}

TEST(ReferenceLogProbs, ComputedBeforeEqualThoseOfEveryStepBitForBit) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  for (const char* name : {"ipo", "sigmoid_full"}) {
    TrainConfig config = dpo_config(golden, name, "dpo_online");
    const RunResult online = run_keeping_pairs(config, golden);
    config.output = test::scratch_dir("dpo_before").string();
    config.stages[0].preference->precompute_ref_log_probs = true;
    const RunResult before = run_keeping_pairs(config, golden);
    ASSERT_EQ(online.steps.size(), before.steps.size());
    for (std::size_t i = 0; i < online.steps.size(); ++i) {
      EXPECT_EQ(online.steps[i].loss, before.steps[i].loss) << name << " step " << i;
      EXPECT_EQ(online.steps[i].extra, before.steps[i].extra) << name << " step " << i;
    }
    expect_equal_bits(online, before);
    EXPECT_TRUE(fs::exists(fs::path(config.output) / "reference-log-probs-0.safetensors"));
  }
}

TEST(ReferenceLogProbs, OfOtherDataOrWeightsAreRefused) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  const fs::path shelf = test::scratch_dir("dpo_shelf");
  TrainConfig config = dpo_config(golden, "sigmoid", "dpo_key_a");
  config.stages[0].max_steps = 2;
  config.stages[0].preference->precompute_ref_log_probs = true;
  config.stages[0].preference->ref_log_probs_path = (shelf / "ref.safetensors").string();
  test::run(config);
  const auto written = fs::last_write_time(shelf / "ref.safetensors");
  config.output = test::scratch_dir("dpo_key_b").string();
  test::run(config);
  EXPECT_EQ(fs::last_write_time(shelf / "ref.safetensors"), written)
      << "the same data and weights use it again";
  const auto expect_refused = [&](const TrainConfig& other,
                                  const std::function<void(LlavaModel&)>& change) {
    try {
      test::run(other, "", 0, change);
      ADD_FAILURE() << "stored log-probabilities were used for something else";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInput);
      EXPECT_NE(std::string(e.what()).find("ref.safetensors"), std::string::npos) << e.what();
    }
  };
  TrainConfig other = config;
  other.output = test::scratch_dir("dpo_key_c").string();
  other.stages[0].data[0].limit = 6;
  expect_refused(other, {});
  config.output = test::scratch_dir("dpo_key_d").string();
  expect_refused(config, [](LlavaModel& model) {
    const at::NoGradGuard no_grad;
    for (NamedParameter& p : model.parameters())
      if (p.name == "language_model.norm.weight") p.tensor.set_data(p.tensor + 0.5);
  });
}

class PreferenceResume : public testing::TestWithParam<std::pair<const char*, bool>> {};

TEST_P(PreferenceResume, AnInterruptedRunEqualsAnUninterruptedOneBitForBit) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  const auto [name, precompute] = GetParam();
  TrainConfig config = dpo_config(golden, name, "dpo_straight");
  StageConfig& stage = config.stages[0];
  stage.max_steps = 6;
  stage.batch_size = 2;
  stage.grad_accum = 2;
  if (!precompute) stage.sampler = SamplerKind::kRandom;
  stage.preference->precompute_ref_log_probs = precompute;
  config.seed = 3;
  const RunResult whole = test::run(config);
  config.output = test::scratch_dir("dpo_broken").string();
  test::run(config, "", 3);
  const RunResult resumed = test::run(config, "auto");
  expect_equal_bits(whole, resumed);
  EXPECT_EQ(whole.steps.back().extra, resumed.steps.back().extra);
}

INSTANTIATE_TEST_SUITE_P(Kinds, PreferenceResume,
                         testing::Values(std::pair{"sigmoid", false}, std::pair{"sigmoid_full", false},
                                         std::pair{"sigmoid_full", true}));

TEST(DpoRun, AReferenceThatIsGoneStopsTheResumedRun) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  TrainConfig config = dpo_config(golden, "sigmoid_full", "dpo_gone");
  config.stages[0].max_steps = 4;
  test::run(config, "", 2);
  fs::remove(fs::path(config.output) / "reference-0.safetensors");
  EXPECT_THROW(test::run(config, "auto"), Error);
}

TEST(DpoRun, ASecondStageTakesTheFirstOnesPairsAsReference) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  TrainConfig config = dpo_config(golden, "sigmoid", "dpo_twice");
  config.stages[0].max_steps = 3;
  config.stages.push_back(config.stages[0]);
  const RunResult run = test::run(config);
  ASSERT_EQ(run.steps.size(), 6u);
  EXPECT_NEAR(run.steps[3].loss, std::log(2.0), 1e-6) << "policy and reference are the pairs of stage 0";
  EXPECT_LT(run.steps[2].loss, std::log(2.0) - 1e-4);
}

TEST(Pipeline, ConnectorThenInstructionsThenPreferencesInOneConfig) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  const fs::path output = test::scratch_dir("pipeline");
  TrainConfig config = test::tiny_config(golden.root, output);
  config.stages[0].max_steps = 4;
  StageConfig tune = config.stages[0];
  tune.train = {"^mm_projector\\."};
  tune.lora = LoraSettings{.r = 8, .lora_alpha = 16};
  tune.max_steps = 8;
  tune.lr = {{"lora_", 1e-3}, {"", 1e-4}};
  StageConfig prefer = preference_config(golden, output, Objective::kDpo).stages[0];
  prefer.max_steps = 12;
  prefer.lr = {{"", 2e-3}};
  config.stages.push_back(tune);
  config.stages.push_back(prefer);
  const auto start = std::chrono::steady_clock::now();
  const RunResult run = test::run(config);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 60);
  ASSERT_EQ(run.steps.size(), 24u);
  EXPECT_NEAR(run.steps[12].loss, std::log(2.0), 1e-6);
  EXPECT_LT(run.steps[23].loss, 0.6);
  EXPECT_GT(run.steps[23].extra.at("rewards/margins"), 0.2);
  EXPECT_EQ(run.steps[23].extra.at("rewards/accuracies"), 1.0);
  const auto reloaded = load_model(read_checkpoint(output / "final"), {});
  EXPECT_EQ(reloaded->parameters().size(),
            load_model(read_checkpoint(config.model), {})->parameters().size());
}

TEST(JoinedPair, IsATreeOverThePromptButItsLastToken) {
  Prompt chosen, rejected;
  chosen.ids = {1, 9, 9, 5, 6, 70, 71, 2}, rejected.ids = {1, 9, 9, 5, 6, 80, 2};
  chosen.labels = {-100, -100, -100, -100, -100, 70, 71, 2};
  rejected.labels = {-100, -100, -100, -100, -100, 80, 2};
  chosen.media_spans = rejected.media_spans = {{1, 2, 0, {}}};
  const auto joined = join_pair(chosen, rejected);
  ASSERT_TRUE(joined.has_value());
  const std::int32_t a = branch_id(1, 1), b = branch_id(1, 2);
  EXPECT_EQ(joined->ids, (std::vector<std::int64_t>{1, 9, 9, 5, 6, 70, 71, 2, 6, 80, 2}));
  EXPECT_EQ(joined->positions, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6}));
  EXPECT_EQ(joined->branch, (std::vector<std::int32_t>{0, 0, 0, 0, a, a, a, a, b, b, b}));
  EXPECT_EQ(joined->labels,
            (std::vector<std::int64_t>{-100, -100, -100, -100, -100, 70, 71, 2, -100, 80, 2}));
  EXPECT_EQ(joined->media_spans.size(), 1u);
  rejected.ids[2] = 8;  // the prompts part within the image
  EXPECT_FALSE(join_pair(chosen, rejected).has_value());
}

TEST(JoinedPair, GivesTheLogProbabilitiesOfTwoRows) {
  LLAVA_GOLDEN_OR_SKIP(folder, "checkpoints/llava15");
  const auto model = load_model(read_checkpoint(folder), {});
  Prompt chosen, rejected;
  for (std::int64_t t = 0; t < 40; ++t) {
    const std::int64_t id = 300 + t * 37 % 1500;
    chosen.ids.push_back(id), chosen.labels.push_back(t < 25 ? -100 : id);
    if (t > 33) continue;
    rejected.ids.push_back(t < 25 ? id : id + 1), rejected.labels.push_back(t < 25 ? -100 : id + 1);
  }
  const Prompt joined = *join_pair(chosen, rejected);
  const at::NoGradGuard no_grad;
  const auto sums = [&](std::vector<CollateRow> rows) {
    return answer_log_probs(*model, rows, {answer_tokens(chosen), answer_tokens(rejected)});
  };
  const at::Tensor one = sums({{.prompt = &joined}}),
                   two = sums({{.prompt = &chosen}, {.prompt = &rejected}});
  EXPECT_LE((one - two).abs().max().item<double>(), 1e-4) << one << two;
  EXPECT_LT(two.max().item<double>(), -20);
}

TEST(DpoRun, BadPairsAreReplacedAndCounted) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  TrainConfig config = dpo_config(golden, "sigmoid", "dpo_bad");
  const fs::path data = test::scratch_dir("dpo_bad_data");
  std::string lines;
  Json rows = read_json_file(golden.root / "train/preference.json");
  rows[1]["rejected"] = rows[1]["chosen"];
  rows[2].erase("chosen");
  rows[3]["image"] = "images/none.png";
  for (const Json& row : rows) lines += row.dump() + "\n";
  std::ofstream(data / "pairs.jsonl") << lines;
  config.stages[0].data = {{(data / "pairs.jsonl").string(), (golden.root / "train").string(), 1.0, 0}};
  config.stages[0].max_steps = 2;
  EXPECT_EQ(test::run(config).steps.size(), 2u);
  const fs::path saved = fs::path(config.output) / "checkpoint-2/state.json";
  EXPECT_GE(read_json_file(saved)["bad_samples"].get<int>(), 3);
}

}  // namespace
}  // namespace llava
