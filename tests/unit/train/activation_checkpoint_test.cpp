// Recomputed blocks: the same gradients, far less memory.
#include "train/activation_checkpoint.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <map>

#include "base/error.h"
#include "config/stage_config.h"
#include "loader/load_model.h"
#include "model/ops.h"
#include "support/counting_allocator.h"
#include "train/stage_setup.h"

namespace llava {
namespace {

ModelConfig small_config(std::int64_t blocks, std::int64_t width) {
  ModelConfig config;
  TowerConfig tower;
  tower.hidden_size = 16, tower.intermediate_size = 24, tower.num_hidden_layers = 4;
  tower.num_attention_heads = 2, tower.image_size = tower.input_size = 28;
  config.tower = tower;
  config.connector.in_size = 16, config.connector.hidden_size = width;
  DecoderConfig& d = config.decoder;
  d.vocab_size = 80, d.hidden_size = width, d.intermediate_size = width * 8 / 3, d.num_hidden_layers = blocks;
  d.num_attention_heads = 4, d.num_key_value_heads = 2, d.head_dim = width / 4;
  d.max_position_embeddings = 1024;
  config.image_token_id = 79;
  return config;
}

std::unique_ptr<LlavaModel> small_model(const ModelConfig& config, bool lora, double dropout,
                                        c10::ScalarType dtype = c10::kFloat) {
  LoadOptions load;
  load.dtype = dtype;
  auto model = random_model(config, 1, load);
  if (!lora) return model;
  LoraConfig pairs;
  pairs.r = 4, pairs.lora_alpha = 8, pairs.dropout = dropout;
  pairs.target = "_proj$|fc1$|fc2$";
  model->add_lora(pairs);
  const at::NoGradGuard no_grad;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{3});
  for (auto& p : model->parameters())
    if (p.name.ends_with("lora_B.weight")) p.tensor.normal_(0, 0.2, generator);
  return model;
}

MultimodalBatch batch_of(std::int64_t rows, std::int64_t tokens, bool image) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{7});
  MultimodalBatch batch;
  batch.ids = at::randint(0, 70, {rows, tokens}, generator, at::kLong);
  batch.positions = at::arange(tokens, at::kLong).expand({rows, tokens}).contiguous();
  batch.lengths = at::full({rows}, tokens, at::kLong);
  batch.labels = batch.ids.clone();
  if (!image) return batch;
  batch.pixels = at::randn({1, 3, 28, 28}, generator);
  batch.media_rows = at::arange(4, at::kLong);
  return batch;
}

std::map<std::string, at::Tensor> gradients(LlavaModel& model, const MultimodalBatch& batch) {
  for (auto& p : model.parameters()) p.tensor.mutable_grad() = at::Tensor();
  at::manual_seed(5);  // dropout
  const at::Tensor loss = model.loss(batch).sum;
  loss.backward();
  std::map<std::string, at::Tensor> found = {{"", loss.detach()}};
  for (auto& p : model.parameters())
    if (p.tensor.grad().defined()) found[p.name] = p.tensor.grad().clone();
  found[" random numbers after the step"] = at::rand({4});
  return found;
}

std::vector<NamedParameter> train(LlavaModel& model, const std::string& part) {
  std::vector<NamedParameter> trained;
  for (auto& p : model.parameters()) {
    const bool wanted = p.name.find(part) != std::string::npos;
    p.tensor.requires_grad_(wanted);
    if (wanted) trained.push_back(p);
  }
  return trained;
}

void expect_same_bits(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, gradient] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    EXPECT_TRUE(at::equal(gradient, b.at(name))) << name;
  }
}

TEST(ActivationCheckpoint, GradientsAreTheSameBitsWithDropoutInDecoderAndTower) {
  for (const auto dtype : {c10::kFloat, c10::kBFloat16}) {
    const auto model = small_model(small_config(6, 32), true, 0.3, dtype);
    const MultimodalBatch batch = batch_of(3, 20, true);
    const auto trained = train(*model, "");
    const auto plain = gradients(*model, batch);
    EXPECT_GT(plain.size(), 100U);
    for (const GradientCheckpointing policy :
         {GradientCheckpointing{1, true}, GradientCheckpointing{2, false}, GradientCheckpointing{0, true}}) {
      set_checkpointing(*model, policy, trained);
      expect_same_bits(plain, gradients(*model, batch));
    }
  }
}

TEST(ActivationCheckpoint, AFrozenInputStillGivesThePairsTheirGradients) {
  const auto model = small_model(small_config(3, 32), true, 0.1);
  const MultimodalBatch batch = batch_of(2, 16, false);  // embeddings are frozen: the first block's input is
  const auto trained = train(*model, "language_model.layers.0.mlp.up_proj.lora_");
  const auto plain = gradients(*model, batch);
  EXPECT_EQ(plain.size(), 2U + 2U);
  set_checkpointing(*model, {1, true}, trained);
  expect_same_bits(plain, gradients(*model, batch));
}

TEST(ActivationCheckpoint, BlocksThatHaveNothingToLearnRunOnce) {
  const auto model = small_model(small_config(4, 32), false, 0);
  const auto trained = train(*model, "language_model.layers.2.mlp.up_proj");
  const MultimodalBatch batch = batch_of(2, 16, false);
  const auto plain = gradients(*model, batch);
  set_checkpointing(*model, {1, true}, trained);
  expect_same_bits(plain, gradients(*model, batch));
  std::map<int, int> runs;
  int layer = 0;
  const at::Tensor x = at::randn({1, 2, 4});
  const Block counts = [&](const at::Tensor& in) { return ++runs[layer], in * 2; };
  EXPECT_FALSE(counts(x).requires_grad());
  layer = 1;
  checkpointed(counts, x).sum().backward();
  EXPECT_EQ(runs[1], 2) << "a block without parameters is a harmless second run";
  layer = 2;
  const at::NoGradGuard no_grad;
  checkpointed(counts, x);
  EXPECT_EQ(runs[2], 1);
}

/// Peak of tensor bytes that a loss and its backward pass add.
std::int64_t peak_of_step(LlavaModel& model, const MultimodalBatch& batch) {
  gradients(model, batch);  // tables that are kept are there afterwards
  for (auto& p : model.parameters()) p.tensor.mutable_grad() = at::Tensor();
  const test::CountingAllocator counting;
  model.loss(batch).sum.backward();
  return counting.peak();
}

TEST(ActivationCheckpoint, PeakOfSixBlocksIsAtMost35PercentOfPlain) {
  const auto model = small_model(small_config(6, 96), true, 0);
  const auto trained = train(*model, ".lora_");
  const MultimodalBatch batch = batch_of(4, 256, false);
  const std::int64_t plain = peak_of_step(*model, batch);
  set_checkpointing(*model, {1, true}, trained);
  const std::int64_t less = peak_of_step(*model, batch);
  EXPECT_LE(static_cast<double>(less), 0.35 * static_cast<double>(plain)) << less << " of " << plain;
  RecordProperty("percent", static_cast<int>(100 * less / plain));
}

TEST(LinearCrossEntropy, PeakIsAtMostAQuarterOfTheNaiveLoss) {
  const std::int64_t rows = 2048, width = 64, vocabulary = 32000;
  const at::Tensor hidden = at::randn({rows, width}).requires_grad_(true);
  const at::Tensor head = at::randn({vocabulary, width}).requires_grad_(true);
  const at::Tensor targets = at::randint(0, vocabulary, {rows}, at::kLong);
  const auto peak = [&](const std::function<at::Tensor()>& loss) {
    hidden.mutable_grad() = head.mutable_grad() = at::Tensor();
    const test::CountingAllocator counting;
    loss().backward();
    return static_cast<double>(counting.peak());
  };
  const double naive =
      peak([&] { return at::cross_entropy_loss(at::linear(hidden, head), targets, {}, at::Reduction::Sum); });
  const at::Tensor wanted = head.grad().clone();
  const double chunked = peak([&] { return linear_cross_entropy(hidden, head, targets, loss_chunk(vocabulary)); });
  EXPECT_LE(chunked, 0.25 * naive) << chunked << " of " << naive;
  EXPECT_LE((head.grad() - wanted).abs().max().item<double>(), 1e-5);
}

TEST(GradientCheckpointingKey, TakesABoolOrPartsAndRefusesTheRest) {
  const auto read = [](const char* json) {
    return from_fields<GradientCheckpointing>(parse_ordered_json(json, "test"), "gradient_checkpointing");
  };
  EXPECT_EQ(read("true"), (GradientCheckpointing{1, true}));
  EXPECT_EQ(read("false"), GradientCheckpointing{});
  EXPECT_EQ(read(R"({"llm": 3})"), (GradientCheckpointing{3, false}));
  EXPECT_EQ(read(R"({"llm": true, "vision_tower": true})"), (GradientCheckpointing{1, true}));
  EXPECT_EQ(read(R"({"llm": 1, "offload": true})"), (GradientCheckpointing{1, false, true}));
  for (const char* bad : {"1", "\"yes\"", R"({"lmm": 1})", R"({"llm": "all"})"}) EXPECT_THROW(read(bad), Error) << bad;
}

}  // namespace
}  // namespace llava
