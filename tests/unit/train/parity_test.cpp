#include <torch/torch.h>

#include "base/json.h"
#include "formats/tensor_file.h"
#include "loader/load_model.h"
#include "support/golden.h"
#include "tensor/convert.h"
#include "tiny_run.h"

namespace llava {
namespace {

using test::RunResult;

constexpr double kTolerance = 1e-4;

at::Tensor golden_tensor(const std::shared_ptr<const TensorFile>& file, const std::string& name) {
  const TensorView* view = file->find(name);
  if (view == nullptr) throw std::runtime_error("golden tensor missing: " + name);
  return to_tensor(*view, file);
}

void expect_steps_match(const std::vector<StepMetrics>& steps, const Json& golden) {
  ASSERT_EQ(steps.size(), golden.size());
  double worst = 0;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const double loss = golden[i]["loss"], norm = golden[i]["grad_norm"], lr = golden[i]["lr"];
    EXPECT_NEAR(steps[i].loss, loss, kTolerance * loss) << "step " << i;
    EXPECT_NEAR(steps[i].grad_norm, norm, kTolerance * norm) << "step " << i;
    EXPECT_NEAR(steps[i].lr, lr, 1e-12) << "step " << i;
    worst = std::max(
        {worst, std::abs(steps[i].loss - loss) / loss, std::abs(steps[i].grad_norm - norm) / norm});
  }
  testing::Test::RecordProperty("worst_relative", fmt::format("{:.2e}", worst));
}

void expect_weight_matches(const RunResult& run, const std::string& ours, const at::Tensor& golden) {
  ASSERT_TRUE(run.weights.contains(ours)) << ours;
  EXPECT_LE((run.weights.at(ours) - golden).abs().max().item<double>(), kTolerance) << ours;
}

void expect_projector_matches(const RunResult& run, const std::shared_ptr<const TensorFile>& file,
                              const std::string& prefix) {
  for (const auto& [ours, theirs] :
       {std::pair{"mm_projector.0.", "linear_1."}, std::pair{"mm_projector.2.", "linear_2."}})
    for (const std::string end : {"weight", "bias"})
      expect_weight_matches(run, ours + end, golden_tensor(file, prefix + theirs + end));
}

/// Everything but what a stage trains is as loaded, bit for bit.
void expect_others_unchanged(const RunResult& run, const std::filesystem::path& checkpoint,
                             const std::function<bool(const std::string&)>& trained) {
  const auto start = load_model(read_checkpoint(checkpoint), {});
  std::size_t frozen = 0;
  for (const NamedParameter& p : start->parameters()) {
    if (trained(p.name)) continue;
    ++frozen;
    EXPECT_TRUE(at::equal(run.weights.at(p.name), p.tensor)) << p.name;
  }
  EXPECT_GT(frozen, 10u);
}

struct Goldens {
  std::filesystem::path root;
  Json report;
  std::shared_ptr<const TensorFile> tensors;
};

Goldens open_goldens(const std::filesystem::path& train) {
  return {train.parent_path(), read_json_file(train / "train.json"),
          open_safetensors(train / "train.safetensors")};
}

bool is_connector(const std::string& name) { return name.rfind("mm_projector.", 0) == 0; }
bool is_decoder(const std::string& name) {
  return name.rfind("language_model.", 0) == 0 || name.rfind("lm_head.", 0) == 0;
}

TEST(TrainingParity, ProjectorRunEqualsTheReferenceStepByStep) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const Goldens golden = open_goldens(train);
  const TrainConfig config = test::tiny_config(golden.root, test::scratch_dir("parity_projector"));
  const RunResult run = test::run(config);
  expect_steps_match(run.steps, golden.report["projector"]);
  expect_projector_matches(run, golden.tensors, "projector/model.multi_modal_projector.");
  expect_others_unchanged(run, config.model, is_connector);
}

TEST(TrainingParity, FullRunEqualsTheReferenceStepByStep) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const Goldens golden = open_goldens(train);
  TrainConfig config = test::tiny_config(golden.root, test::scratch_dir("parity_full"));
  config.stages[0].train = {"^mm_projector\\.", "^language_model\\.", "^lm_head\\."};
  config.stages[0].lr = {{"", 2e-4}};
  const RunResult run = test::run(config);
  expect_steps_match(run.steps, golden.report["full"]);
  expect_projector_matches(run, golden.tensors, "full/model.multi_modal_projector.");
  for (const std::string name : {"layers.0.self_attn.q_proj.weight", "norm.weight"})
    expect_weight_matches(run, "language_model." + name,
                          golden_tensor(golden.tensors, "full/model.language_model." + name));
  expect_others_unchanged(run, config.model,
                          [](const auto& name) { return is_connector(name) || is_decoder(name); });
}

/// 50 steps of tools/reference/make_train_golden.py: decoder, head and connector; in `tower` the tower as well.
void expect_fifty_steps_match(const std::string& mode, std::vector<std::string> train,
                              std::size_t tensors) {
  LLAVA_GOLDEN_OR_SKIP(data, "train");
  LLAVA_GOLDEN_OR_SKIP(report, "train_50/run.json");
  TrainConfig config = test::tiny_config(data.parent_path(), test::scratch_dir("parity_50_" + mode));
  config.stages[0].train = std::move(train);
  config.stages[0].lr = {{"", 2e-4}};
  config.stages[0].max_steps = 50;
  const RunResult run = test::run(config);
  expect_steps_match(run.steps, read_json_file(report)[mode]);
  const std::shared_ptr<const TensorFile> file = open_safetensors(report.parent_path() / "run.safetensors");
  std::size_t compared = 0;
  for (const auto& [ours, theirs] : {std::pair{"mm_projector.0.", "model.multi_modal_projector.linear_1."},
                                     std::pair{"mm_projector.2.", "model.multi_modal_projector.linear_2."},
                                     std::pair{"language_model.", "model.language_model."},
                                     std::pair{"vision_tower.", "model.vision_tower.vision_model."}})
    for (const auto& [name, tensor] : run.weights) {
      if (name.rfind(ours, 0) != 0) continue;
      const TensorView* view = file->find(mode + "/" + theirs + name.substr(std::string(ours).size()));
      if (view == nullptr) continue;
      expect_weight_matches(run, name, to_tensor(*view, file));
      ++compared;
    }
  EXPECT_EQ(compared, tensors);
}

TEST(TrainingParity, FiftyFullStepsEqualTheReference) {
  expect_fifty_steps_match("full", {"^mm_projector\\.", "^language_model\\.", "^lm_head\\."}, 5);
}

TEST(TrainingParity, FiftyStepsWithTheTowerEqualTheReference) {
  expect_fifty_steps_match("tower", {"."}, 3);
}

TEST(TrainingParity, LoraRunEqualsPeftStepByStep) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const Goldens golden = open_goldens(train);
  TrainConfig config = test::tiny_config(golden.root, test::scratch_dir("parity_lora"));
  config.stages[0].lr = {{"", 5e-4}};
  config.stages[0].lora = LoraSettings{.r = 8, .lora_alpha = 16};
  const auto peft_name = [](const std::string& prefix, std::string name) {
    return prefix + "/base_model.model.model." + name.insert(name.rfind(".weight"), ".default");
  };
  std::map<std::string, at::Tensor> trained;  // the merged model at the end has no pairs left
  RunResult run;
  {
    std::int64_t steps = 0;
    LlavaModel* model = nullptr;
    TrainOptions options;
    options.on_stage_start = [&](LlavaModel& started) {
      model = &started;
      const at::NoGradGuard no_grad;
      std::size_t set = 0;
      for (NamedParameter& p : started.parameters())
        if (p.name.find(".lora_A.") != std::string::npos)
          p.tensor.copy_(golden_tensor(golden.tensors, peft_name("lora_init", p.name))), ++set;
      EXPECT_EQ(set, 14u);
    };
    options.on_step = [&](const StepMetrics& metrics) {
      run.steps.push_back(metrics);
      if (++steps == 20)
        for (const NamedParameter& p : model->parameters()) run.weights[p.name] = p.tensor.detach().clone();
    };
    Trainer(config, options).run();
  }
  expect_steps_match(run.steps, golden.report["lora"]);
  expect_projector_matches(run, golden.tensors,
                           "lora/base_model.model.model.multi_modal_projector.modules_to_save.default.");
  std::size_t pairs = 0;
  for (const auto& [name, tensor] : run.weights)
    if (name.find(".lora_") != std::string::npos)
      expect_weight_matches(run, name, golden_tensor(golden.tensors, peft_name("lora", name))), ++pairs;
  EXPECT_EQ(pairs, 28u);
  expect_others_unchanged(run, config.model, is_connector);
}

}  // namespace
}  // namespace llava
