#include "preference_golden.h"

#include <torch/torch.h>

#include "tensor/convert.h"

namespace llava::test {

namespace fs = std::filesystem;

namespace {

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

}  // namespace

Golden open_golden(const fs::path& folder) {
  const fs::path root = folder.parent_path();
  return {root, read_json_file(folder / "preference.json"),
          open_safetensors(folder / "preference.safetensors"),
          open_safetensors(root / "train/train.safetensors")};
}

TrainConfig preference_config(const Golden& golden, const fs::path& output, Objective objective) {
  TrainConfig config = tiny_config(golden.root, output);
  StageConfig& stage = config.stages[0];
  stage.objective = objective;
  stage.train = {};
  stage.lora = LoraSettings{.r = 8, .lora_alpha = 16};
  stage.data = {{(golden.root / "train/preference.json").string(), "", 1.0, 0}};
  return config;
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

void expect_equal_pairs(const std::map<std::string, at::Tensor>& last, const Golden& golden,
                        const std::string& prefix) {
  std::size_t compared = 0;
  for (const std::string module :
       {"language_model.layers.0.self_attn.q_proj", "language_model.layers.1.mlp.down_proj"})
    for (const char* part : {".lora_A.weight", ".lora_B.weight"}) {
      const TensorView* view = golden.tensors->find(prefix + "/" + module + part);
      ASSERT_NE(view, nullptr) << prefix;
      ASSERT_TRUE(last.contains(module + part));
      EXPECT_LE((last.at(module + part) - to_tensor(*view, golden.tensors)).abs().max().item<double>(),
                kRunTolerance)
          << prefix << " " << module;
      ++compared;
    }
  EXPECT_EQ(compared, 4u);
}

RunResult run_keeping_pairs(const TrainConfig& config, const Golden& golden, const AnswerSampler& sampler) {
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
      for (const NamedParameter& p : model->parameters())
        result.weights[p.name] = p.tensor.detach().clone();
  };
  Trainer(config, options).run();
  return result;
}

void expect_equal_bits(const RunResult& a, const RunResult& b) {
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (const auto& [name, tensor] : a.weights) EXPECT_TRUE(at::equal(tensor, b.weights.at(name))) << name;
}

}  // namespace llava::test
