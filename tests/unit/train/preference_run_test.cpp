// Whole runs of the objectives dpo, kto and grpo against TRL's (tests/golden/preference), and their resumption.
#include <torch/torch.h>

#include <chrono>
#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "formats/tensor_file.h"
#include "loader/load_model.h"
#include "support/golden.h"
#include "tensor/convert.h"
#include "tiny_run.h"

namespace llava {
namespace {

namespace fs = std::filesystem;
using test::RunResult;

constexpr double kRunTolerance = 1e-4;

struct Golden {
  fs::path root;
  Json report;
  std::shared_ptr<const TensorFile> tensors, start;
};

Golden open_golden(const fs::path& folder) {
  const fs::path root = folder.parent_path();
  return {root, read_json_file(folder / "preference.json"), open_safetensors(folder / "preference.safetensors"),
          open_safetensors(root / "train/train.safetensors")};
}

/// LoRA's first matrices of the golden runs.
std::function<void(LlavaModel&)> set_pairs(const Golden& golden) {
  return [&golden](LlavaModel& model) {
    const at::NoGradGuard no_grad;
    std::size_t set = 0;
    for (NamedParameter& p : model.parameters()) {
      if (p.name.find(".lora_A.") == std::string::npos) continue;
      std::string name = p.name;
      const TensorView* view = golden.start->find("lora_init/base_model.model.model." +
                                                  name.insert(name.rfind(".weight"), ".default"));
      ASSERT_NE(view, nullptr) << name;
      p.tensor.copy_(to_tensor(*view, golden.start));
      ++set;
    }
    EXPECT_EQ(set, 14u);
  };
}

/// The golden runs' set-up: LoRA on the decoder, nothing else trains.
TrainConfig preference_config(const Golden& golden, const fs::path& output, Objective objective) {
  TrainConfig config = test::tiny_config(golden.root, output);
  StageConfig& stage = config.stages[0];
  stage.objective = objective;
  stage.train = {};
  stage.lora = LoraSettings{.r = 8, .lora_alpha = 16};
  stage.data = {{(golden.root / "train/preference.json").string(), "", 1.0, 0}};
  return config;
}

template <class T>
T settings_of(const Json& run, std::initializer_list<const char*> keys) {
  OrderedJson json = OrderedJson::object();
  for (const char* key : keys)
    if (run["config"].contains(key)) json[key] = OrderedJson::parse(run["config"][key].dump());
  return from_fields<T>(json);
}

void expect_equal_steps(const RunResult& run, const Json& golden, const std::string& name) {
  ASSERT_EQ(run.steps.size(), golden.size());
  double worst = 0;
  for (std::size_t i = 0; i < golden.size(); ++i) {
    const StepMetrics& ours = run.steps[i];
    const double loss = golden[i]["loss"].get<double>();
    EXPECT_NEAR(ours.loss, loss, kRunTolerance * std::max(1.0, std::abs(loss))) << name << " step " << i;
    const double norm = golden[i]["grad_norm"].get<double>();
    EXPECT_NEAR(ours.grad_norm, norm, 1e-3 * norm) << name << " step " << i;
    worst = std::max(worst, std::abs(ours.loss - loss));
    for (const char* key : {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
                            "logps/chosen", "logps/rejected", "kl", "reward", "reward_std"}) {
      if (!golden[i].contains(key)) continue;
      ASSERT_TRUE(ours.extra.contains(key)) << name << " " << key;
      const double expected = golden[i][key].get<double>();
      EXPECT_NEAR(ours.extra.at(key), expected, kRunTolerance * std::max(1.0, std::abs(expected)))
          << name << " " << key << " step " << i;
    }
  }
  testing::Test::RecordProperty(name, fmt::format("{:.2e}", worst));
}

/// The pairs that the golden keeps. The trainer's model has merged them by now, so they come from `last`.
void expect_equal_pairs(const std::map<std::string, at::Tensor>& last, const Golden& golden,
                        const std::string& prefix) {
  std::size_t compared = 0;
  for (const std::string module : {"language_model.layers.0.self_attn.q_proj", "language_model.layers.1.mlp.down_proj"})
    for (const char* part : {".lora_A.weight", ".lora_B.weight"}) {
      const TensorView* view = golden.tensors->find(prefix + "/" + module + part);
      ASSERT_NE(view, nullptr) << prefix;
      ASSERT_TRUE(last.contains(module + part));
      EXPECT_LE((last.at(module + part) - to_tensor(*view, golden.tensors)).abs().max().item<double>(), kRunTolerance)
          << prefix << " " << module;
      ++compared;
    }
  EXPECT_EQ(compared, 4u);
}

/// Runs and keeps copies of the pairs after the last step.
RunResult run_keeping_pairs(const TrainConfig& config, const Golden& golden, const AnswerSampler& sampler = {}) {
  RunResult result;
  LlavaModel* model = nullptr;
  TrainOptions options;
  options.sampler = sampler;
  options.on_stage_start = [&](LlavaModel& started) {
    model = &started;
    if (config.stages[0].lora) set_pairs(golden)(started);
  };
  options.on_step = [&](const StepMetrics& metrics) {
    result.steps.push_back(metrics);
    if (static_cast<std::int64_t>(result.steps.size()) == config.stages[0].max_steps)
      for (const NamedParameter& p : model->parameters()) result.weights[p.name] = p.tensor.detach().clone();
  };
  Trainer(config, options).run();
  return result;
}

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
    EXPECT_LE((run.weights.at(ours) - to_tensor(*view, golden.tensors)).abs().max().item<double>(), kRunTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, DpoParity,
                         testing::Values("sigmoid", "sigmoid_full", "robust", "ipo", "hinge", "sigmoid_sft"));

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
  expect_equal_steps(run_keeping_pairs(config, golden), golden.report["dpo"]["sigmoid_sft"]["steps"], "rpo");
}

void expect_equal_bits(const RunResult& a, const RunResult& b) {
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (const auto& [name, tensor] : a.weights) EXPECT_TRUE(at::equal(tensor, b.weights.at(name))) << name;
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
  EXPECT_EQ(fs::last_write_time(shelf / "ref.safetensors"), written) << "the same data and weights use it again";
  const auto expect_refused = [&](const TrainConfig& other, const std::function<void(LlavaModel&)>& change) {
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

TEST(KtoRun, TwentyStepsEqualTrl) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  const Json& run = golden.report["kto"]["kto"];
  for (const bool precompute : {false, true}) {
    TrainConfig config = preference_config(golden, test::scratch_dir("kto"), Objective::kKto);
    StageConfig& stage = config.stages[0];
    stage.data = {{(folder / "kto.json").string(), (golden.root / "train").string(), 1.0, 0}};
    stage.preference = settings_of<PreferenceConfig>(run, {"beta", "desirable_weight", "undesirable_weight"});
    stage.preference->precompute_ref_log_probs = precompute;
    stage.lr = {{"", run["config"]["learning_rate"].get<double>()}};
    const RunResult ours = run_keeping_pairs(config, golden);
    expect_equal_steps(ours, run["steps"], "kto");
    expect_equal_pairs(ours.weights, golden, "kto/kto");
  }
}

/// A sampler that says what TRL sampled.
AnswerSampler recorded(const Json& steps, std::size_t& step) {
  return [&steps, &step](LlavaModel&, const Tokenizer&, std::span<const CollateRow> rows, const SamplingParams&) {
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
  stage.grpo = settings_of<GrpoConfig>(run, {"beta", "loss_type", "scale_rewards", "num_generations",
                                             "max_completion_length", "reward_weights", "reward_length",
                                             "reward_regex"});
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
  TrainConfig config = grpo_config(golden, golden.report["grpo"]["dapo"], test::scratch_dir("grpo_straight"));
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
  EXPECT_NE(whole.steps[4].extra.at("completions/mean_length"), whole.steps[5].extra.at("completions/mean_length"));
}

TEST(GrpoRun, WithoutADecoderIsRefused) {
  LLAVA_GOLDEN_OR_SKIP(folder, "preference");
  const Golden golden = open_golden(folder);
  EXPECT_THROW(test::run(grpo_config(golden, golden.report["grpo"]["dapo"], test::scratch_dir("grpo_none"))), Error);
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
  EXPECT_EQ(reloaded->parameters().size(), load_model(read_checkpoint(config.model), {})->parameters().size());
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
