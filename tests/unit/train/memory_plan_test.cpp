#include "train/memory_plan.h"

#include <torch/torch.h>

#include "base/yaml.h"
#include "support/golden.h"
#include "tiny_run.h"
#include "train/accelerators.h"
#include "train/optimizer.h"
#include "train/plan.h"

namespace llava {
namespace {

constexpr double kGibi = 1024.0 * 1024.0 * 1024.0;

/// A plan of LLaVA-1.5-7B without weights and data; `more` are further keys of the stage, `top` of the run.
RunPlan plan_of_7b(const std::string& more, const PlanOptions& options, const std::string& top = "") {
  const std::string text =
      "model: nowhere/to/be/found\nrecipe: llava-1.5-7b\noutput: never\n" + top +
      "stages:\n- name: one\n  data: [{path: nowhere.json}]\n"
      "  expected: {samples: 558128, tokens: 600, supervised_tokens: 20, images: 1}\n  batch_size: 2\n" +
      more;
  return plan_run(train_config_from_json(parse_yaml(text, "test")), options);
}

const PlanOptions kOne3090{.processes = 1, .gpu = "rtx3090"};

template <class Body>
std::string message_of(ErrorKind kind, Body&& body) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    return std::string(e.what()) + " | " + e.hint();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST(Plan, CountsLlava15AsPublished) {
  const StagePlan projector = plan_of_7b("  train: ['^mm_projector\\.']\n", kOne3090).stages[0];
  EXPECT_TRUE(projector.expected);
  EXPECT_EQ(projector.trained_connector, 20979712);
  EXPECT_EQ(projector.trained_tower + projector.trained_decoder + projector.trained_lora, 0);
  EXPECT_EQ(projector.steps, 279064);
  const StagePlan full =
      plan_of_7b("  train: ['^mm_projector\\.', '^language_model\\.', '^lm_head\\.']\n", kOne3090)
          .stages[0];
  EXPECT_EQ(full.trained_decoder, 6738415616);
  const StagePlan lora = plan_of_7b("  lora: {r: 128, lora_alpha: 256}\n  train: []\n", kOne3090).stages[0];
  // seven matrices of 32 blocks: 128 rows of in + out numbers each
  EXPECT_EQ(lora.trained_lora, 32 * 128 * (4 * (4096 + 4096) + 3 * (4096 + 11008)));
  const StagePlan tower = plan_of_7b("  train: ['^vision_tower\\.']\n", kOne3090).stages[0];
  // CLIP ViT-L/14-336 has 303,507,456 numbers; its last block and the norm after it are not used
  EXPECT_EQ(tower.trained_tower, 303507456 - 12596224 - 2048);
}

TEST(Plan, WeightsOf7bTakeTwoBytesEachOrAboutHalfOneInFourBits) {
  const std::string lora = "  lora: {r: 16}\n  train: []\n";
  const double plain = plan_of_7b(lora, kOne3090).stages[0].memory.weights;
  const double pairs = 4 * 39976960.0;  // float32
  EXPECT_NEAR(plain, 2 * (6738415616.0 + 20979712 + 290909184) + pairs, 1e6);
  const double packed =
      plan_of_7b(lora, kOne3090, "quantization: {load_in_4bit: true, bnb_4bit_use_double_quant: true}\n")
          .stages[0]
          .memory.weights;
  const double matrices = 32 * (4 * 4096.0 * 4096 + 3 * 4096.0 * 11008);
  EXPECT_NEAR(plain - packed, matrices * (2 - 4.127 / 8), 2e6);
}

TEST(Plan, SevenBillionTrainOnCardsOf24GibOnlyWithQloraOrZero) {
  const std::string lora =
      "  lora: {r: 128, lora_alpha: 256, dropout: 0.05}\n  train: ['^mm_projector\\.']\n"
      "  gradient_checkpointing: true\n  grad_accum: 8\n";
  const std::string packed = "quantization: {load_in_4bit: true, bnb_4bit_use_double_quant: true}\n";
  EXPECT_TRUE(plan_of_7b(lora, kOne3090, packed).stages[0].fits);
  EXPECT_TRUE(plan_of_7b(lora, {.processes = 8, .gpu = "rtx3090"}, "distributed: {strategy: zero3}\n")
                  .stages[0]
                  .fits);
  const std::string full = "  train: ['^language_model\\.']\n  grad_accum: 8\n";
  const StagePlan alone = plan_of_7b(full, kOne3090).stages[0];
  EXPECT_FALSE(alone.fits);
  EXPECT_NE(alone.advice.find("does not fit"), std::string::npos) << alone.advice;
  const StagePlan eight = plan_of_7b(full, {.processes = 8, .gpu = "a100-80"}).stages[0];
  EXPECT_FALSE(eight.fits) << "8 bytes a number for moments alone, 54 GB";
  EXPECT_NE(eight.advice.find("fits with gradient_checkpointing: true"), std::string::npos) << eight.advice;
  EXPECT_NE(eight.advice.find("zero2"), std::string::npos) << eight.advice;
}

TEST(Plan, CheckpointingAndSmallerBatchesNeedLess) {
  const std::string stage = "  train: ['^mm_projector\\.']\n  lora: {r: 16}\n";
  const auto peak = [&](const std::string& more) {
    return plan_of_7b(stage + more, kOne3090).stages[0].memory.peak;
  };
  EXPECT_LT(peak("  gradient_checkpointing: true\n"), peak("") - 2 * kGibi);
  EXPECT_LT(peak("  gradient_checkpointing: true\n"), peak("  gradient_checkpointing: {llm: 2}\n"));
  EXPECT_LT(peak("  gradient_checkpointing: {llm: 2}\n"), peak(""));
  EXPECT_LT(peak("  max_length: 300\n"), peak(""));
}

TEST(Plan, TimeAndWorkFollowTheNumberOfCards) {
  const std::string stage = "  train: ['^mm_projector\\.']\n";
  const StagePlan one = plan_of_7b(stage, {.processes = 1, .gpu = "a100-80"}).stages[0];
  const StagePlan eight = plan_of_7b(stage, {.processes = 8, .gpu = "a100-80"}).stages[0];
  EXPECT_EQ(one.flops, eight.flops);
  EXPECT_NEAR(one.days, 8 * eight.days, 1e-9);
  // 4 operations a weight and token, and the tower's and the connector's
  EXPECT_GT(one.flops, 4 * 6.4e9 * 558128 * 600);
  EXPECT_LT(one.flops, 5 * 6.4e9 * 558128 * 600);
  EXPECT_GT(eight.days * 24, 1.5) << "published: 3.5 hours on 8 A100";
  EXPECT_LT(eight.days * 24, 4);
}

TEST(Plan, NamesWhatIsMissingOrMistyped) {
  const std::string card = message_of(ErrorKind::kUsage, [] { find_accelerator("rtx3900"); });
  EXPECT_NE(card.find("did you mean \"rtx3090\""), std::string::npos) << card;
  EXPECT_NE(card.find("a100-80"), std::string::npos) << card;
  const std::string stage = "  train: ['^mm_projector\\.']\n";
  EXPECT_NE(message_of(ErrorKind::kUsage, [&] { plan_of_7b(stage, {.processes = 0, .gpu = "h100"}); })
                .find("--gpus"),
            std::string::npos);
  EXPECT_NE(message_of(ErrorKind::kInput,
                       [] { check_expected({.samples = 5, .tokens = 0}, "stages.0.expected"); })
                .find("stages.0.expected.tokens"),
            std::string::npos);
  TrainConfig config;
  config.model = "nowhere/to/be/found", config.output = "never", config.recipe = "llava-1.5-7b";
  config.stages = {StageConfig{}};
  config.stages[0].data = {{"nowhere.json"}};
  config.stages[0].train = {"^mm_projector\\."};
  EXPECT_NE(message_of(ErrorKind::kInput, [&] { plan_run(config, kOne3090); }).find("expected"),
            std::string::npos);
  config.recipe = "llava-1.6-7b";
  EXPECT_NE(message_of(ErrorKind::kUsage, [&] { plan_run(config, kOne3090); }).find("did you mean"),
            std::string::npos);
  const std::string packed = "quantization: {load_in_4bit: true}\n";
  EXPECT_NE(message_of(ErrorKind::kInput,
                       [&] { plan_of_7b("  train: ['^language_model\\.']\n", kOne3090, packed); })
                .find("packed in 4 bits"),
            std::string::npos);
}

TEST(OptimizerBytes, AreThoseOfTheOptimizers) {
  const std::vector<NamedParameter> trained = {
      {"language_model.embed_tokens.weight", at::zeros({70, 64}, at::kBFloat16)},
      {"language_model.layers.0.mlp.up_proj.weight", at::zeros({96, 64}, at::kBFloat16)},
      {"language_model.norm.weight", at::zeros({64}, at::kBFloat16)},
      {"lm_head.weight", at::zeros({70, 64}, at::kBFloat16)}};
  for (const auto& [name, kind] : EnumTable<OptimizerKind>::names)
    for (const bool master : {true, false}) {
      OptimConfig config;
      config.name = kind, config.master_weights = master;
      const Optimizer optimizer(trained, {{"", 1e-3}}, config);
      EXPECT_NEAR(optimizer_bytes(trained, config), static_cast<double>(optimizer.state_bytes()), 64.0)
          << name << master;
    }
}

TEST(Plan, LooksAtTheDataThatAreHere) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("plan_data"));
  config.stages[0].expected = ExpectedData{.samples = 1e6, .tokens = 7, .supervised_tokens = 1};
  const StagePlan plan = plan_run(config, {}).stages[0];
  EXPECT_FALSE(plan.expected);
  EXPECT_EQ(plan.samples, 8);
  EXPECT_GT(plan.tokens, 20 * 4 * 64);
  EXPECT_GT(plan.views, 0);
}

TEST(ImageAspectRatio, ChangesWhatTheStageSeesAndIsInTheFinalModel) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  std::map<std::string, double> loss;
  for (const char* ratio : {"", "square", "pad"}) {
    TrainConfig config =
        test::tiny_config(train.parent_path(), test::scratch_dir(std::string("ratio") + ratio));
    config.stages[0].max_steps = 1;
    if (*ratio != 0)
      config.stages[0].image_aspect_ratio = *ratio == 's' ? AspectRatio::kSquare : AspectRatio::kPad;
    loss[ratio] = test::run(config).steps[0].loss;
    const CheckpointInfo made = read_checkpoint(std::filesystem::path(config.output) / "final");
    EXPECT_EQ(made.image_policy->aspect_ratio == AspectRatio::kPad, *ratio == 'p') << ratio;
  }
  EXPECT_EQ(loss[""], loss["square"]) << "the model's own way is to crop";
  EXPECT_NE(loss[""], loss["pad"]);
}

TEST(ImageAspectRatio, OfTwoStagesDoesNotShareCachedFeatures) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("ratio_stages"));
  config.stages[0].max_steps = 1;
  config.stages[0].lr = {{"", 0.0}};  // so that both stages see the same weights
  config.stages.push_back(config.stages[0]);
  config.stages[1].image_aspect_ratio = AspectRatio::kPad;
  const auto steps = test::run(config).steps;
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_NE(steps[0].loss, steps[1].loss);
  std::size_t caches = 0;
  for (const auto& entry : std::filesystem::directory_iterator(config.output))
    caches += entry.path().filename().string().starts_with("features-");
  EXPECT_EQ(caches, 2u);
}

}  // namespace
}  // namespace llava
