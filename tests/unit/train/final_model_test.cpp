#include <torch/torch.h>

#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "loader/load_model.h"
#include "support/golden.h"
#include "tiny_run.h"

namespace llava {
namespace {

namespace fs = std::filesystem;
using test::RunResult;

std::map<std::string, at::Tensor> weights_of(const fs::path& folder, bool merge_adapters = true) {
  LoadOptions options;
  options.merge_adapters = merge_adapters;
  const auto model = load_model(read_checkpoint(folder), options);
  std::map<std::string, at::Tensor> weights;
  for (const NamedParameter& p : model->parameters()) weights[p.name] = p.tensor.clone();
  return weights;
}

void expect_equal_weights(const std::map<std::string, at::Tensor>& a,
                          const std::map<std::string, at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
  }
}

class FinalModel : public testing::TestWithParam<const char*> {};

TEST_P(FinalModel, IsTheTrainedModelInTheBasesLayout) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  LLAVA_GOLDEN_OR_SKIP(base, std::string("checkpoints/") + GetParam());
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("final"));
  config.model = base.string();
  config.stages[0].max_steps = 3;
  config.stages[0].train.push_back("^vision_tower\\.");
  const RunResult run = test::run(config);
  const fs::path final_folder = fs::path(config.output) / "final";
  const CheckpointInfo info = read_checkpoint(final_folder);
  EXPECT_EQ(info.layout, read_checkpoint(base).layout);
  EXPECT_NE(info.tokenizer, nullptr);
  expect_equal_weights(weights_of(final_folder), run.weights);
}

INSTANTIATE_TEST_SUITE_P(Layouts, FinalModel, testing::Values("llava15", "llava15_orig", "llava_siglip"));

TEST(FinalLora, IsMergedIntoAWholeModel) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("final_lora"));
  config.stages[0].max_steps = 3;
  config.stages[0].lora = LoraSettings{.r = 4, .lora_alpha = 8};
  test::run(config);
  const auto before = weights_of(config.model), after = weights_of(fs::path(config.output) / "final");
  ASSERT_EQ(before.size(), after.size());
  for (const auto& [name, tensor] : after) {
    const bool target =
        name.rfind("language_model.", 0) == 0 && name.find("_proj.weight") != std::string::npos;
    const bool connector = name.rfind("mm_projector.", 0) == 0;
    EXPECT_EQ(at::equal(tensor, before.at(name)), !target && !connector) << name;
  }
}

/// A folder that only names its parts, without a connector yet.
fs::path write_parts(const fs::path& golden, const fs::path& folder) {
  const Json config = {{"model_type", "llava_cpp"},
                       {"vision_tower", fs::absolute(golden / "checkpoints/clip_vision").string()},
                       {"language_model", fs::absolute(golden / "checkpoints/llama").string()},
                       {"mm_projector_type", "mlp2x_gelu"},
                       {"mm_projector_norm", true},
                       {"chat_format", "vicuna_v1"}};
  std::ofstream(folder / "config.json") << config.dump();
  return folder;
}

TrainConfig parts_config(const fs::path& golden, const std::string& name) {
  TrainConfig config = test::tiny_config(golden, test::scratch_dir(name + "_out"));
  config.model = write_parts(golden, test::scratch_dir(name)).string();
  config.stages[0].chat_template.reset();
  config.stages[0].tokenisation = TokenisationMode::kModel;
  config.stages[0].max_steps = 3;
  config.stages[0].lora = LoraSettings{.r = 4, .lora_alpha = 8};
  return config;
}

TEST(FinalParts, HoldConnectorAndAdapterAndCanBeTrainedOn) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  LLAVA_GOLDEN_OR_SKIP(tower, "checkpoints/clip_vision");
  LLAVA_GOLDEN_OR_SKIP(decoder, "checkpoints/llama");
  TrainConfig config = parts_config(train.parent_path(), "parts");
  const RunResult first = test::run(config);
  const fs::path final_folder = fs::path(config.output) / "final";
  EXPECT_LT(fs::file_size(final_folder / "mm_projector.safetensors"), 100000u);
  EXPECT_FALSE(fs::exists(final_folder / "model.safetensors"));
  EXPECT_EQ(read_json_file(final_folder / "adapter_config.json")["r"], 4);
  expect_equal_weights(weights_of(final_folder, false), first.weights);
  config.model = final_folder.string();
  config.output = test::scratch_dir("parts_again").string();
  config.stages[0].schedule = {ScheduleKind::kConstant, 0.0, 0.0};
  const RunResult second = test::run(config);
  ASSERT_EQ(first.weights.size(), second.weights.size());
  const std::string a = "language_model.layers.0.self_attn.q_proj.lora_A.weight";
  EXPECT_FALSE(at::equal(first.weights.at(a), second.weights.at(a)));
  EXPECT_LT((first.weights.at(a) - second.weights.at(a)).abs().max().item<double>(), 0.1)
      << "goes on from the adapter";
}

TEST(FinalParts, RefuseTrainingWeightsThatCannotBeSaved) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  LLAVA_GOLDEN_OR_SKIP(tower, "checkpoints/clip_vision");
  LLAVA_GOLDEN_OR_SKIP(decoder, "checkpoints/llama");
  TrainConfig config = parts_config(train.parent_path(), "named_parts");
  config.stages[0].train.push_back("^language_model\\.");
  try {
    test::run(config);
    FAIL() << "trained what cannot be saved";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("language_model."), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace llava
