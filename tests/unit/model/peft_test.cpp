// Adapters: PEFT's files against PEFT's logits (tools/reference/make_peft_golden.py), and the kinds of pairs.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"
#include "model/lora.h"
#include "model_golden.h"
#include "support/golden.h"
#include "tensor/convert.h"
#include "toy_model.h"

namespace llava::test {
namespace {

/// The ids and pixels of make_peft_golden.py.
MultimodalBatch peft_batch(const ModelConfig& config) {
  const std::int64_t side = config.tower->image_size, patches = config.num_image_tokens();
  const at::Tensor text = at::arange(12, at::kLong).mul(37).remainder(1900).add(5);
  const at::Tensor ids =
      at::cat({at::ones({1}, at::kLong), at::full({patches}, config.image_token_id, at::kLong), text});
  const at::Tensor pixels =
      at::arange(3 * side * side, at::kLong).mul(7919).remainder(1000).to(at::kFloat).div(500).sub(1);
  return batch_of(ids, pixels.view({1, 3, side, side}), config.image_token_id);
}

class PeftFiles : public testing::TestWithParam<const char*> {};

TEST_P(PeftFiles, GivePeftsLogitsUnmergedAndMerged) {
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava15");
  LLAVA_GOLDEN_OR_SKIP(adapter, std::string("peft/") + GetParam());
  LLAVA_GOLDEN_OR_SKIP(logits, "peft/logits.safetensors");
  const std::shared_ptr<const TensorFile> file = open_safetensors(logits);
  const at::Tensor wanted = to_tensor(*file->find(std::string(GetParam()) + "/logits"), file);
  const CheckpointInfo info = read_checkpoint(adapter, base);
  const at::NoGradGuard no_grad;
  for (const bool merge : {false, true}) {
    LoadOptions options;
    options.merge_adapters = merge;
    const auto model = load_model(info, options);
    const at::Tensor found = full_logits(*model, peft_batch(model->config())).slice(1, -3);
    EXPECT_LE(max_abs_diff(found, wanted), merge ? 2e-5 : 1e-5) << (merge ? "merged" : "unmerged");
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, PeftFiles, testing::Values("lora", "rslora", "dora"));

MultimodalBatch toy_batch() {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{7});
  MultimodalBatch batch = batch_of_rows({at::randint(0, 70, {9}, generator, at::kLong)}, {}, 79);
  batch.labels = batch.ids.clone();
  return batch;
}

void disturb_pairs(LlavaModel& model) {
  const at::NoGradGuard no_grad;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{3});
  for (auto& p : model.parameters()) {
    if (p.name.ends_with(".lora_B.weight")) p.tensor.normal_(0, 0.2, generator);
    if (p.name.ends_with(".lora_magnitude_vector"))
      p.tensor.mul_(at::empty_like(p.tensor).uniform_(0.8, 1.2, generator));
  }
}

TEST(Dora, StartsAsTheBaseModelAndMergesIntoTheSameFunction) {
  const auto model = toy_model(toy_config());
  const at::NoGradGuard no_grad;
  const at::Tensor before = full_logits(*model, toy_batch());
  LoraConfig lora;
  lora.r = 4, lora.target = "language_model.*_proj$", lora.use_dora = true;
  const std::size_t layers = model->add_lora(lora).size(), plain = model->parameters().size() - 3 * layers;
  EXPECT_LE(max_abs_diff(full_logits(*model, toy_batch()), before), 1e-5);
  disturb_pairs(*model);
  const at::Tensor adapted = full_logits(*model, toy_batch());
  EXPECT_GT(max_abs_diff(adapted, before), 1e-2);
  model->merge_lora();
  EXPECT_EQ(model->parameters().size(), plain);
  EXPECT_LE(max_abs_diff(full_logits(*model, toy_batch()), adapted), 1e-5);
}

TEST(Dora, TheNormIsAConstantInTheGradient) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{5});
  Linear linear;
  linear.name = "layer", linear.weight = at::randn({6, 5}, generator), linear.bias = at::randn({6}, generator);
  LoraConfig lora;
  lora.r = 2, lora.lora_alpha = 3, lora.target = "layer", lora.use_dora = true;
  add_lora({&linear}, lora);
  linear.lora_b.normal_(0, 0.5, generator);
  for (at::Tensor* t : {&linear.lora_a, &linear.lora_b, &linear.lora_magnitude}) t->requires_grad_(true);
  const at::Tensor x = at::randn({4, 5}, generator), weigh = at::randn({4, 6}, generator);
  const auto found = torch::autograd::grad({(linear(x) * weigh).sum()},
                                           {linear.lora_a, linear.lora_b, linear.lora_magnitude});
  const at::Tensor adapted = linear.weight + 1.5 * at::mm(linear.lora_b, linear.lora_a);
  const at::Tensor ratio = (linear.lora_magnitude / at::linalg_vector_norm(adapted, 2, 1).detach()).unsqueeze(1);
  const at::Tensor expected = at::linear(x, ratio * adapted, linear.bias);
  EXPECT_LE(max_abs_diff(linear(x), expected), 1e-5);
  const auto wanted = torch::autograd::grad({(expected * weigh).sum()},
                                            {linear.lora_a, linear.lora_b, linear.lora_magnitude});
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_LE(max_abs_diff(found[i], wanted[i]), 1e-5) << i;
}

TEST(LoraKinds, PairsAboveA16BitBaseAreFloat32UnlessAskedOtherwise) {
  LoadOptions options;
  options.dtype = at::kBFloat16;
  for (const bool wide : {true, false}) {
    const auto model = random_model(toy_config(), 1, options);
    LoraConfig lora;
    lora.r = 4, lora.target = "language_model.*q_proj$", lora.float32_pairs = wide;
    model->add_lora(lora);
    disturb_pairs(*model);
    for (auto& p : model->parameters()) {
      if (p.name.find(".lora_") == std::string::npos) continue;
      EXPECT_EQ(p.tensor.scalar_type(), wide ? at::kFloat : at::kBFloat16) << p.name;
    }
    const at::NoGradGuard no_grad;
    EXPECT_EQ(full_logits(*model, toy_batch()).scalar_type(), at::kBFloat16);
  }
}

TEST(LoraKinds, GaussianStartHasDeviationOneOverRank) {
  const auto model = toy_model(toy_config());
  LoraConfig lora;
  lora.r = 8, lora.target = "language_model.*_proj$", lora.init = LoraInit::kGaussian;
  model->add_lora(lora);
  std::vector<at::Tensor> all;
  for (auto& p : model->parameters())
    if (p.name.ends_with(".lora_A.weight")) all.push_back(p.tensor.flatten());
  EXPECT_NEAR(at::cat(all).std().item<double>(), 1.0 / 8, 0.004);
}

TEST(LoraKinds, PatternsGiveSingleLayersOtherRanksAndScales) {
  const auto model = toy_model(toy_config());
  LoraConfig lora;
  lora.r = 4, lora.lora_alpha = 8, lora.target = "language_model.*_proj$";
  lora.rank_pattern = {{"layers.1.self_attn.q_proj", 6}, {"down_proj", 2}};
  lora.alpha_pattern = {{"(up|down)_proj", 3}};
  model->add_lora(lora);
  std::size_t checked = 0;
  for (const Linear* linear : model->linears()) {
    if (!linear->has_lora()) continue;
    ++checked;
    const bool down = linear->name.ends_with("down_proj"), up = linear->name.ends_with("up_proj");
    const double rank = linear->name.ends_with("layers.1.self_attn.q_proj") ? 6 : down ? 2 : 4;
    EXPECT_EQ(linear->lora_a.size(0), rank) << linear->name;
    EXPECT_EQ(linear->lora_scale, (down || up ? 3.0 : 8.0) / rank) << linear->name;
  }
  EXPECT_EQ(checked, 21U);
  lora.rank_pattern = {{"no_such_layer", 6}};
  EXPECT_THROW(toy_model(toy_config())->add_lora(lora), Error);
}

TEST(Packed, ModelEqualsOneOfTheUnpackedNumbersAndPassesTheirGradient) {
  LoadOptions options;
  options.quantization.emplace();
  options.quantization->load_in_4bit = options.quantization->bnb_4bit_use_double_quant = true;
  const auto packed = random_model(toy_config(), 1, options), plain = toy_model(toy_config());
  const at::Tensor exact = [&] {
    const at::NoGradGuard no_grad;
    return full_logits(*plain, toy_batch());
  }();
  std::size_t count = 0;
  for (std::size_t i = 0; i < plain->linears().size(); ++i) {
    const Linear& from = *packed->linears()[i];
    EXPECT_EQ(from.nf4.has_value(), from.name.starts_with("language_model.")) << from.name;
    if (!from.nf4) continue;
    ++count;
    const at::NoGradGuard no_grad;
    plain->linears()[i]->weight.copy_(from.dense_weight(at::kFloat));
  }
  EXPECT_EQ(count, 21U);
  LoraConfig lora;
  lora.r = 4, lora.target = "language_model.*_proj$";
  std::map<std::string, at::Tensor> gradients[2];
  double losses[2] = {};
  for (const int i : {0, 1}) {
    LlavaModel& model = i == 0 ? *packed : *plain;
    model.add_lora(lora);
    disturb_pairs(model);
    for (auto& p : model.parameters())
      if (p.name.find(".lora_") != std::string::npos) p.tensor.requires_grad_(true);
    const auto loss = model.loss(toy_batch());
    losses[i] = loss.sum.item<double>();
    loss.sum.backward();
    for (auto& p : model.parameters())
      if (p.tensor.grad().defined()) gradients[i][p.name] = p.tensor.grad();
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-5);
  ASSERT_EQ(gradients[0].size(), 42U);
  for (const auto& [name, gradient] : gradients[1])
    EXPECT_LE(max_abs_diff(gradients[0].at(name), gradient), 1e-5) << name;
  const at::NoGradGuard no_grad;
  packed->set_lora_enabled(false);
  EXPECT_GT(max_abs_diff(full_logits(*packed, toy_batch()), exact), 1e-3) << "rounding is seen";
  EXPECT_THROW(packed->merge_lora(), Error);
}

}  // namespace
}  // namespace llava::test
