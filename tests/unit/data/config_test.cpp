#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/yaml.h"
#include "config/stage_config.h"
#include "support/golden.h"

namespace llava {
namespace {

const char* kExample = R"(
model: llava-nano
output: runs/nano
seed: 3
save_steps: 100
stages:
  - name: pretrain
    data: [{path: captions.json, image_root: images, weight: 1.0}]
    train: ['^mm_projector\.']         # everything else is frozen
    lr: {'^mm_projector\.': 1e-3}
    lora: null
    template: plain
    max_steps: 0
    epochs: 1
    batch_size: 8
    grad_accum: 1
    max_length: 2048
    optim: {name: adamw, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0}
    schedule: {name: cosine, warmup_ratio: 0.03}
    loss_normalisation: token
    sampler: random
    dtype: bfloat16
)";

std::string error_of(const std::string& yaml) {
  try {
    train_config_from_json(parse_yaml(yaml, "test"));
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

TEST(TrainConfig, ReadsTheDocumentedExample) {
  const TrainConfig config = train_config_from_json(parse_yaml(kExample, "example"));
  ASSERT_EQ(config.stages.size(), 1u);
  const StageConfig& stage = config.stages[0];
  EXPECT_EQ(config.seed, 3u);
  EXPECT_EQ(stage.train, std::vector<std::string>{"^mm_projector\\."});
  EXPECT_EQ(stage.lr, (PatternNumbers{{"^mm_projector\\.", 1e-3}}));
  EXPECT_FALSE(stage.lora.has_value());
  EXPECT_EQ(stage.chat_template, "plain");
  EXPECT_EQ(stage.optim.eps, 1e-8);
  EXPECT_EQ(stage.schedule.name, ScheduleKind::kCosine);
}

TEST(TrainConfig, WritesWhatItReads) {
  const TrainConfig config = train_config_from_json(parse_yaml(kExample, "example"));
  const std::string written = to_yaml(to_fields(config));
  EXPECT_EQ(to_yaml(to_fields(train_config_from_json(parse_yaml(written, "written")))), written);
}

TEST(TrainConfig, NamesTheNearestKeyForAnUnknownOne) {
  const std::string message = error_of(replaced(kExample, "grad_accum", "grad_acum"));
  EXPECT_NE(message.find("stages.0.grad_acum"), std::string::npos) << message;
  EXPECT_NE(message.find("did you mean \"grad_accum\""), std::string::npos) << message;
}

TEST(TrainConfig, PackingAndRecomputingAreReadAndRefusedWhereTheyCannotWork) {
  const std::string packed = replaced(kExample, "sampler: random", "packing: true\n    sampler: random");
  EXPECT_TRUE(train_config_from_json(parse_yaml(packed, "test")).stages[0].packing);
  EXPECT_THAT(error_of(packed + "    turns: independent\n"), testing::HasSubstr("packing"));
  EXPECT_THAT(error_of(packed + "    objective: answer_embedding\n"), testing::HasSubstr("packing"));
  EXPECT_THAT(error_of(replaced(packed, "normalisation: token", "normalisation: micro-batch")),
              testing::HasSubstr("packing"));
  EXPECT_THAT(error_of(std::string(kExample) + "    packing_length: 8\n"), testing::HasSubstr("packing_length"));
  EXPECT_THAT(error_of(std::string(kExample) + "    gradient_checkpointing: {llm: -1}\n"),
              testing::HasSubstr("gradient_checkpointing.llm"));
  EXPECT_EQ(error_of(std::string(kExample) + "    gradient_checkpointing: {llm: 2, vision_tower: true}\n"), "");
}

TEST(TrainConfig, RefusesValuesThatCannotWork) {
  EXPECT_NE(error_of(replaced(kExample, "batch_size: 8", "batch_size: 0")).find("stages.0.batch_size"),
            std::string::npos);
  EXPECT_NE(error_of(replaced(kExample, "batch_size: 8", "batch_size: many")).find("an integer"),
            std::string::npos);
  EXPECT_NE(error_of(replaced(kExample, "sampler: random", "sampler: modalty")).find("\"modality\""),
            std::string::npos);
  EXPECT_NE(error_of(replaced(kExample, "['^mm_projector\\.']", "['(']")).find("regular expression"),
            std::string::npos);
  EXPECT_NE(error_of(replaced(kExample, "['^mm_projector\\.']", "[]")).find("nothing trains"),
            std::string::npos);
  EXPECT_NE(error_of(replaced(kExample, "dtype: bfloat16", "dtype: int3")).find("stages.0.dtype"),
            std::string::npos);
  const std::string second = "  - {data: [{path: a}], train: [x], dtype: float32}\n";
  EXPECT_NE(error_of(kExample + second).find("one dtype"), std::string::npos);
  EXPECT_NE(error_of("model: a\noutput: b\nstages: []").find("stages"), std::string::npos);
}

TEST(ApplyAssignment, ReplacesAddsAndIndexes) {
  OrderedJson json = parse_yaml(kExample, "example");
  apply_assignment(json, "stages.0.max_steps=6");
  apply_assignment(json, "stages.0.lr.^mm_projector\\.=2e-4");
  apply_assignment(json, "stages.0.lora.r=4");
  apply_assignment(json, "output=runs/other");
  apply_assignment(json, "stages.0.optim.betas.1=0.95");
  const TrainConfig config = train_config_from_json(json);
  EXPECT_EQ(config.stages[0].max_steps, 6);
  EXPECT_EQ(config.stages[0].lr[0].second, 2e-4);
  EXPECT_EQ(config.stages[0].lora->r, 4);
  EXPECT_EQ(config.output, "runs/other");
  EXPECT_EQ(config.stages[0].optim.betas[1], 0.95);
  EXPECT_THROW(apply_assignment(json, "stages.7.max_steps=6"), Error);
  EXPECT_THROW(apply_assignment(json, "seed.x=6"), Error);
  EXPECT_THROW(apply_assignment(json, "seed"), Error);
}

TEST(ParseYaml, TypesScalarsAndKeepsQuotedTextAndOrder) {
  const OrderedJson json = parse_yaml("z: 1\na: [1e-3, '5', true, null, ~, -2, v1.5, \"\"]\n", "t");
  EXPECT_EQ(json.dump(), R"({"z":1,"a":[0.001,"5",true,null,null,-2,"v1.5",""]})");
}

TEST(ParseYaml, BoundsAliasesDepthAndDuplicates) {
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n";
  for (char c = 'b'; c < 'k'; ++c) {
    const std::string last = std::string("*") + static_cast<char>(c - 1);
    bomb += fmt::format("{}: &{} [{}]\n", c, c, fmt::join(std::vector<std::string>(9, last), ","));
  }
  EXPECT_THROW(parse_yaml(bomb, "bomb"), Error);
  EXPECT_THROW(parse_yaml(std::string(400, '['), "deep"), Error);
  EXPECT_THROW(parse_yaml("a: 1\na: 2\n", "twice"), Error);
  EXPECT_THROW(parse_yaml("a: &x [*x]\n", "cycle"), Error);
  EXPECT_THROW(parse_yaml("a: [1", "open"), Error);
}

TEST(ReadTrainConfig, ResolvesPathsFromTheConfigsFolder) {
  const auto folder = test::scratch_dir("train_config");
  std::ofstream(folder / "captions.json") << "[]";
  std::ofstream(folder / "c.yaml") << kExample;
  const TrainConfig config = read_train_config((folder / "c.yaml").string(), {"seed=9"});
  EXPECT_EQ(config.stages[0].data[0].path, (folder / "captions.json").string());
  EXPECT_EQ(config.seed, 9u);
  EXPECT_THROW(read_train_config((folder / "none.yaml").string(), {}), Error);
}

/// The example with an objective and its settings.
std::string with_objective(const std::string& lines) {
  return replaced(kExample, "    dtype: bfloat16", "    dtype: bfloat16\n" + lines);
}

TEST(PreferenceConfig, ReadsTrlsKeys) {
  const TrainConfig config = train_config_from_json(parse_yaml(
      with_objective("    objective: dpo\n"
                     "    preference: {beta: 0.2, loss_type: [robust, sft], loss_weights: [1, 0.5], label_smoothing: 0.1}\n"),
      "test"));
  ASSERT_TRUE(config.stages[0].preference.has_value());
  EXPECT_EQ(config.stages[0].preference->loss_type,
            (std::vector<PreferenceLoss>{PreferenceLoss::kRobust, PreferenceLoss::kSft}));
  EXPECT_EQ(error_of(with_objective("    objective: dpo\n")), "") << "the settings have defaults";
  EXPECT_EQ(error_of(with_objective("    objective: grpo\n    grpo: {reward_funcs: [length], num_generations: 4}\n")), "");
}

TEST(PreferenceConfig, RefusesWhatWouldBeIgnoredOrCannotWork) {
  const std::pair<const char*, const char*> cases[] = {
      {"    preference: {beta: 0.1}\n", "stages.0.preference: is for objective: dpo or kto"},
      {"    objective: dpo\n    grpo: {reward_funcs: [length]}\n", "stages.0.grpo"},
      {"    objective: dpo\n    turns: independent\n", "stages.0.turns"},
      {"    objective: dpo\n    loss_normalisation: micro-batch\n", "loss_normalisation"},
      {"    objective: dpo\n    preference: {beta: 0}\n", "preference.beta"},
      {"    objective: dpo\n    preference: {loss_type: [sigmod]}\n", "did you mean \"sigmoid\""},
      {"    objective: dpo\n    preference: {loss_type: [sigmoid], loss_weights: [1, 2]}\n", "2 weights for 1"},
      {"    objective: dpo\n    preference: {label_smoothing: 0.1}\n", "cdpo and robust"},
      {"    objective: dpo\n    preference: {desirable_weight: 2}\n", "for objective kto"},
      {"    objective: dpo\n    preference: {ref_log_probs_path: x}\n", "precompute_ref_log_probs"},
      {"    objective: kto\n    preference: {loss_type: [ipo]}\n", "for objective dpo"},
      {"    objective: kto\n    preference: {precompute_ref_log_probs: true}\n", "sequential"},
      {"    objective: grpo\n", "stages.0.grpo: is missing"},
      {"    objective: grpo\n    grpo: {num_generations: 4}\n", "reward_funcs"},
      {"    objective: grpo\n    grpo: {reward_funcs: [lenght]}\n", "did you mean \"length\""},
      {"    objective: grpo\n    grpo: {reward_funcs: [format]}\n", "reward_regex"},
      {"    objective: grpo\n    grpo: {reward_funcs: [length], num_generations: 1}\n", "num_generations"},
      {"    objective: grpo\n    grpo: {reward_funcs: [judge]}\n", "judge_model"},
      {"    objective: grpo\n    grpo: {reward_funcs: [length], num_iterations: 2}\n", "num_iterations"},
  };
  for (const auto& [lines, words] : cases) {
    const std::string message = error_of(with_objective(lines));
    EXPECT_NE(message.find(words), std::string::npos) << lines << " -> " << message;
  }
  const std::string dropout = replaced(with_objective("    objective: dpo\n"), "lora: null", "lora: {dropout: 0.1}");
  EXPECT_NE(error_of(dropout).find("lora.dropout"), std::string::npos);
  const std::string alone = replaced(with_objective("    objective: kto\n"), "batch_size: 8", "batch_size: 1");
  EXPECT_NE(error_of(alone).find("stages.0.batch_size"), std::string::npos);
}

}  // namespace
}  // namespace llava
