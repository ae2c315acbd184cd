// Layouts and decoder variants golden/ lacks (tools/reference/make_model_extra.py), and DINOv2.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "model_golden.h"
#include "support/golden.h"
#include "vision/image.h"
#include "vision/media_plan.h"

namespace llava::test {
namespace {

struct Case {
  const char* name;
  const char* file = "";       ///< inside the folder, for GGUF
  const char* base = nullptr;  ///< --model-base inside the folder
};

class ExtraModel : public testing::TestWithParam<Case> {};

TEST_P(ExtraModel, EqualsTransformers) {
  LLAVA_GOLDEN_OR_SKIP(folder, std::string("models_extra/") + GetParam().name);
  const Golden golden(folder / "reference.safetensors");
  std::optional<std::filesystem::path> base;
  if (GetParam().base != nullptr) base = folder / GetParam().base;
  const auto path = *GetParam().file != '\0' ? folder / GetParam().file : folder;
  const CheckpointInfo checkpoint = read_checkpoint(path, base);
  const auto model = load_model(checkpoint, {});
  expect_case_matches(*model, checkpoint, golden, "case");
}

INSTANTIATE_TEST_SUITE_P(Layouts, ExtraModel,
                         testing::Values(Case{"llava_qwen2_sharded"}, Case{"llava_mistral_newkeys"}, Case{"vipllava"},
                                         Case{"original_linear_bin"}, Case{"original_embedded_tower"},
                                         Case{"lora_on_base", "", "base"},
                                         Case{"projector_on_base", "", "base"}, Case{"qwen2_window"},
                                         Case{"llama_biases_yarn"}, Case{"gguf_llama", "model.gguf"}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(ExtraModel, AnUnmergedAdapterIsTheSameFunctionWithTrainablePairs) {
  LLAVA_GOLDEN_OR_SKIP(folder, "models_extra/lora_on_base");
  LoadOptions options;
  options.merge_adapters = false;
  const CheckpointInfo checkpoint = read_checkpoint(folder, folder / "base");
  const auto model = load_model(checkpoint, options);
  std::size_t pairs = 0;
  for (const auto& p : model->parameters()) pairs += p.name.ends_with(".lora_A.weight");
  EXPECT_EQ(pairs, 14U);
  expect_case_matches(*model, checkpoint, Golden(folder / "reference.safetensors"), "case");
}

/// The families of the full reference set that golden/ leaves out; made by make_checkpoints.py and
/// make_goldens.py.
class FullSet : public testing::TestWithParam<const char*> {};

TEST_P(FullSet, EqualsTransformers) {
  const char* root = std::getenv("LLAVA_FULL_GOLDEN");
  if (root == nullptr) GTEST_SKIP() << "LLAVA_FULL_GOLDEN names the folder with the full reference set";
  const std::filesystem::path all = root;
  const Golden golden(all / "models" / (std::string(GetParam()) + ".safetensors"));
  const CheckpointInfo checkpoint = read_checkpoint(all / "checkpoints" / GetParam());
  const auto model = load_model(checkpoint, {});
  EXPECT_GE(expect_all_cases_match(*model, checkpoint, golden), 2);
}

INSTANTIATE_TEST_SUITE_P(Families, FullSet,
                         testing::Values("llama_sharded", "qwen2", "qwen2_tied", "llava15_sharded",
                                         "llava15_newkeys", "llava_next_llama3", "llava_next_qwen2"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Dinov2, ResamplesItsPositionsAsTransformersDoes) {
  LLAVA_GOLDEN_OR_SKIP(folder, "models_extra/dinov2_vision");
  const Golden golden(folder / "reference.safetensors");
  CheckpointInfo info = read_checkpoint(folder);
  const at::NoGradGuard no_grad;
  for (const std::int64_t side : {42, 56, 84}) {
    const std::string key = "side" + std::to_string(side);
    info.model.tower->input_size = side;
    const LoadedTower loaded = load_tower(info, {});
    const at::Tensor pixels = golden.at(key + "/pixel_values");
    EXPECT_LE(max_abs_diff(at::cat(loaded.tower->hidden_states(pixels)), golden.at(key + "/hidden_states")),
              5e-5)
        << key;
    EXPECT_LE(max_abs_diff(loaded.tower->selected(pixels), golden.at(key + "/last_hidden_state")), 5e-5)
        << key;
  }
}

/// The converted tower of llava-nano, where scripts/demo or scripts/test has installed it.
std::optional<std::filesystem::path> installed_tower() {
  try {
    return find_model("llava-nano") / "vision_tower";
  } catch (const Error&) {
    return std::nullopt;
  }
}

TEST(Dinov2, OfLlavaNanoEqualsOnnxruntime) {
  LLAVA_GOLDEN_OR_SKIP(folder, "dinov2");
  const auto tower_folder = installed_tower();
  if (!tower_folder) GTEST_SKIP() << "llava-nano is not installed (scripts/test installs it)";
  const CheckpointInfo info = read_checkpoint(*tower_folder);
  ASSERT_EQ(info.model.tower->input_size, 224);
  const Image image = load_image(folder / "input.png");
  const MediaPlan plan = plan_media({image.width, image.height}, *info.image_policy, info.model);
  std::vector<float> values = render_pixels(image, plan, *info.image_policy);
  const at::Tensor pixels = at::from_blob(values.data(), {1, 3, 224, 224}, at::kFloat);
  const Golden golden(folder / "reference.safetensors");
  const at::NoGradGuard no_grad;
  const at::Tensor hidden = load_tower(info, {}).tower->selected(pixels)[0];
  EXPECT_LE(max_abs_diff(hidden.index_select(0, golden.at("rows")), golden.at("last_hidden_state")), 1e-4);
}

}  // namespace
}  // namespace llava::test
