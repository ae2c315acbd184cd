// QLoRA runs against transformers + peft + bitsandbytes (tools/reference/make_qlora_golden.py).
#include <torch/torch.h>

#include "base/error.h"
#include "base/json.h"
#include "formats/tensor_file.h"
#include "support/golden.h"
#include "tensor/convert.h"
#include "tiny_run.h"

namespace llava {
namespace {

TrainConfig qlora_config(const std::filesystem::path& golden, const std::string& name) {
  TrainConfig config = test::tiny_config(golden, test::scratch_dir(name));
  config.quantization.emplace();
  config.quantization->load_in_4bit = config.quantization->bnb_4bit_use_double_quant = true;
  StageConfig& stage = config.stages[0];
  stage.train.clear();
  stage.max_steps = 30;
  stage.lr = {{"", 5e-4}};
  stage.lora = LoraSettings{.r = 8, .lora_alpha = 16, .modules_to_save = {"multi_modal_projector"}};
  return config;
}

struct QloraGolden {
  std::shared_ptr<const TensorFile> file;
  at::Tensor at(const std::string& kind, std::string name) const {
    name = kind + "/base_model.model.model." + name.insert(name.rfind(".weight"), ".default");
    const TensorView* view = file->find(name);
    if (view == nullptr) throw std::runtime_error("golden tensor missing: " + name);
    return to_tensor(*view, file);
  }
};

TEST(QloraParity, ThirtyStepsEqualTransformersPeftAndBitsandbytes) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  LLAVA_GOLDEN_OR_SKIP(report, "qlora/run.json");
  const QloraGolden golden{open_safetensors(report.parent_path() / "run.safetensors")};
  const Json steps = read_json_file(report);
  LlavaModel* model = nullptr;
  std::vector<StepMetrics> found;
  std::map<std::string, at::Tensor> last;
  TrainOptions options;
  options.on_stage_start = [&](LlavaModel& started) {
    model = &started;
    const at::NoGradGuard no_grad;
    for (NamedParameter& p : started.parameters())
      if (p.name.ends_with(".lora_A.weight")) p.tensor.copy_(golden.at("init", p.name));
  };
  options.on_step = [&](const StepMetrics& metrics) {
    found.push_back(metrics);
    if (found.size() == 30)
      for (const NamedParameter& p : model->parameters()) last[p.name] = p.tensor.detach().clone();
  };
  Trainer(qlora_config(train.parent_path(), "qlora"), options).run();
  ASSERT_EQ(found.size(), steps.size());
  double worst = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double loss = steps[i]["loss"], norm = steps[i]["grad_norm"];
    EXPECT_NEAR(found[i].loss, loss, 1e-4) << "step " << i;
    EXPECT_NEAR(found[i].grad_norm, norm, 1e-4 * norm) << "step " << i;
    worst = std::max(worst, std::abs(found[i].loss - loss));
  }
  testing::Test::RecordProperty("worst_loss_difference", fmt::format("{:.2e}", worst));
  std::size_t compared = 0;
  for (const auto& [name, tensor] : last) {
    if (name.find("layers.0.") == std::string::npos || name.find(".lora_") == std::string::npos) continue;
    EXPECT_LE((tensor - golden.at("final", name)).abs().max().item<double>(), 1e-4) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 14U);
  for (const auto& [name, tensor] : last) {
    const bool packed = name.ends_with("_proj.weight") && name.starts_with("language_model.");
    EXPECT_EQ(tensor.scalar_type() == at::kByte, packed) << name;
  }
}

TEST(Qlora, RefusesToTrainWhatIsPacked) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = qlora_config(train.parent_path(), "qlora_packed");
  config.stages[0].train = {"^language_model\\.layers\\.0\\."};
  try {
    test::run(config);
    FAIL() << "trained codes";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInput);
    EXPECT_NE(std::string(e.what()).find("packed in 4 bits"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace llava
