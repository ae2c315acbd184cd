// Fused decoder blocks against the plain chain of operations.
#include "model/fused_block.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <map>

#include "config/branch.h"
#include "model/attention_varlen.h"
#include "model/ops.h"
#include "model_golden.h"
#include "toy_model.h"

namespace llava::test {
namespace {

ModelConfig block_config() {
  ModelConfig config = toy_config();
  DecoderConfig& d = config.decoder;
  config.connector.hidden_size = 64;
  d.hidden_size = 64, d.intermediate_size = 80, d.num_attention_heads = 6, d.num_key_value_heads = 2, d.head_dim = 16;
  d.max_position_embeddings = 512, d.num_hidden_layers = 2;
  return config;
}

std::unique_ptr<LlavaModel> block_model(const ModelConfig& config, c10::ScalarType dtype, bool lora) {
  LoadOptions load;
  load.dtype = dtype;
  auto model = random_model(config, 1, load);
  if (!lora) return model;
  LoraConfig pairs;
  pairs.r = 4, pairs.lora_alpha = 6, pairs.target = "language_model.*_proj$";
  model->add_lora(pairs);
  const at::NoGradGuard no_grad;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{3});
  for (auto& p : model->parameters())
    if (p.name.ends_with("lora_B.weight")) p.tensor.normal_(0, 0.2, generator);
  return model;
}

/// Rows of different lengths, over more than one block of queries, with an image in the first.
MultimodalBatch ragged_batch() {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{7});
  std::vector<at::Tensor> rows;
  for (const std::int64_t length : {113, 5, 64}) rows.push_back(at::randint(0, 70, {length}, generator, at::kLong));
  rows[0].narrow(0, 2, 4).fill_(79);
  MultimodalBatch batch = batch_of_rows(rows, at::randn({1, 3, 28, 28}, generator), 79);
  batch.labels = batch.ids.clone();
  for (std::int64_t b = 0; b < 3; ++b) batch.labels[b].slice(0, batch.lengths[b].item<std::int64_t>()).fill_(-100);
  return batch;
}

using Tensors = std::map<std::string, at::Tensor>;

Tensors step(LlavaModel& model, const MultimodalBatch& batch, bool fused) {
  fused::set_blocks_enabled(fused);
  for (auto& p : model.parameters()) p.tensor.mutable_grad() = at::Tensor();
  const auto loss = model.loss(batch);
  loss.sum.backward();
  fused::set_blocks_enabled(true);
  Tensors found = {{"loss", loss.sum.detach()}};
  for (auto& p : model.parameters())
    if (p.tensor.grad().defined()) found[p.name] = p.tensor.grad().clone();
  return found;
}

/// Largest relative difference of whole tensors, in the 2-norm. The exact gradient of a key's bias is zero (softmax does
/// not see a shift of all scores), so what is found there is rounding: hence the absolute slack.
void expect_near(const Tensors& a, const Tensors& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    const at::Tensor wide = tensor.to(at::kDouble), other = b.at(name).to(at::kDouble);
    const double scale = wide.norm().item<double>();
    EXPECT_LE((wide - other).norm().item<double>(), tolerance * scale + 1e-6) << name << " of norm " << scale;
  }
}

void train_everything_but(LlavaModel& model, const std::string& frozen) {
  for (auto& p : model.parameters())
    p.tensor.requires_grad_(frozen.empty() || p.name.find(frozen) == std::string::npos);
}

TEST(FusedBlock, EqualsThePlainChainWithAllGradients) {
  for (const bool biases : {false, true}) {
    ModelConfig config = block_config();
    config.decoder.attention_bias = biases;
    const auto model = block_model(config, c10::kFloat, true);
    train_everything_but(*model, "");
    const Tensors plain = step(*model, ragged_batch(), false);
    expect_near(plain, step(*model, ragged_batch(), true), 1e-5);
    EXPECT_GT(plain.size(), 60U);
  }
}

TEST(FusedBlock, EqualsThePlainChainWhereOnlyPairsOrOnlyMatricesTrain) {
  const auto model = block_model(block_config(), c10::kFloat, true);
  for (auto& p : model->parameters()) p.tensor.requires_grad_(p.name.find(".lora_") != std::string::npos);
  expect_near(step(*model, ragged_batch(), false), step(*model, ragged_batch(), true), 1e-5);
  const auto bare = block_model(block_config(), c10::kFloat, false);
  train_everything_but(*bare, "norm");
  expect_near(step(*bare, ragged_batch(), false), step(*bare, ragged_batch(), true), 1e-5);
}

TEST(FusedBlock, InEightBitsIsAsNearToFloat32AsThePlainChainInEightBits) {
  for (const bool biases : {false, true}) {
    ModelConfig config = block_config();
    config.decoder.attention_bias = biases;
    const auto model = block_model(config, c10::kFloat, true);
    for (auto& p : model->parameters()) p.tensor.requires_grad_(p.name.find(".lora_") != std::string::npos);
    const Tensors wanted = step(*model, ragged_batch(), false);
    model->set_frozen_compute(FrozenCompute::kInt8);
    const Tensors fast = step(*model, ragged_batch(), true), plain = step(*model, ragged_batch(), false);
    ASSERT_EQ(fast.size(), plain.size());
    for (const auto& [name, tensor] : wanted) {
      const double scale = tensor.norm().item<double>();
      const double off = (fast.at(name) - tensor).norm().item<double>();
      const double plain_off = (plain.at(name) - tensor).norm().item<double>();
      EXPECT_LE(off, 1.3 * plain_off + 1e-3 * scale) << name << " of norm " << scale;
      EXPECT_TRUE(off > 0 || name == "loss") << name << ": not in eight bits at all";
      EXPECT_LE((fast.at(name) - plain.at(name)).norm().item<double>(), 0.5 * plain_off + 1e-3 * scale) << name;
    }
  }
}

TEST(FusedBlock, Bfloat16IsAsNearToFloat32AsThePlainChainWithBothKindsOfProducts) {
  const auto narrow = block_model(block_config(), c10::kBFloat16, true);
  const auto exact = block_model(block_config(), c10::kFloat, true);
  const at::NoGradGuard no_grad;
  auto from = narrow->parameters(), to = exact->parameters();
  for (std::size_t i = 0; i < from.size(); ++i) to[i].tensor.copy_(from[i].tensor);
  const at::AutoGradMode with_grad(true);
  train_everything_but(*narrow, ""), train_everything_but(*exact, "");
  const bool native = fused::native_bfloat16();
  const Tensors wanted = step(*exact, ragged_batch(), false);
  for (const bool products : {true, false}) {
    fused::set_native_bfloat16(products);
    const Tensors fast = step(*narrow, ragged_batch(), true), plain = step(*narrow, ragged_batch(), false);
    for (const auto& [name, tensor] : wanted) {
      const double scale = tensor.norm().item<double>();
      const double off = (fast.at(name).to(at::kFloat) - tensor).norm().item<double>();
      const double plain_off = (plain.at(name).to(at::kFloat) - tensor).norm().item<double>();
      // A key's bias shifts all scores of a query alike, so its exact gradient is zero: what is there is rounding
      // of sums whose parts are as large as those of the key's weight.
      const bool zero = name.ends_with("k_proj.bias");
      const double of = zero ? wanted.at(name.substr(0, name.size() - 4) + "weight").norm().item<double>() : scale;
      EXPECT_LE(off, 1.5 * plain_off + 4e-3 * of) << name << " of norm " << of;
    }
  }
  fused::set_native_bfloat16(native);
}

TEST(FusedBlock, ABatchsOtherRowsAndPaddingDoNotTouchARow) {
  const auto model = block_model(block_config(), c10::kFloat, false);
  const at::NoGradGuard no_grad;
  MultimodalBatch batch = ragged_batch();
  const at::Tensor before = model->decode(model->embed(batch), batch);
  EXPECT_EQ(before[1].slice(0, 5).abs().sum().item<double>(), 0.0) << "padding";
  batch.ids[0].narrow(0, 50, 20).fill_(3);
  const at::Tensor after = model->decode(model->embed(batch), batch);
  EXPECT_TRUE(at::equal(before[2], after[2]));
  EXPECT_TRUE(at::equal(before[0].slice(0, 0, 50), after[0].slice(0, 0, 50)));
  EXPECT_FALSE(at::equal(before[0].slice(0, 50, 113), after[0].slice(0, 50, 113)));
}

TEST(FusedBlock, BranchesAndWindowsEqualThePlainChain) {
  const auto model = block_model(block_config(), c10::kFloat, false);
  train_everything_but(*model, "");
  MultimodalBatch batch = ragged_batch();
  batch.branch = at::zeros({3, 113}, at::kInt);
  batch.branch[0].slice(0, 40, 70).fill_(branch_id(1, 0));
  batch.branch[0].slice(0, 70, 113).fill_(branch_id(2, 0));
  batch.labels.select(1, 40).fill_(-100), batch.labels.select(1, 70).fill_(-100);
  expect_near(step(*model, batch, false), step(*model, batch, true), 1e-5);
  ModelConfig config = block_config();
  config.decoder.sliding_window = 20, config.decoder.first_sliding_layer = 1;
  const auto windowed = block_model(config, c10::kFloat, false);
  train_everything_but(*windowed, "");
  expect_near(step(*windowed, ragged_batch(), false), step(*windowed, ragged_batch(), true), 1e-5);
}

/// The rows of a padded batch in one packed row.
MultimodalBatch packed(const MultimodalBatch& batch) {
  MultimodalBatch one = batch;
  std::vector<at::Tensor> ids, labels, positions;
  std::vector<std::int64_t> lengths;
  for (std::int64_t b = 0; b < batch.ids.size(0); ++b) {
    lengths.push_back(batch.lengths[b].item<std::int64_t>());
    ids.push_back(batch.ids[b].slice(0, 0, lengths[b]));
    labels.push_back(batch.labels[b].slice(0, 0, lengths[b]).clone());
    labels.back()[0] = -100;
    positions.push_back(batch.positions[b].slice(0, 0, lengths[b]));
  }
  one.ids = at::cat(ids).unsqueeze(0), one.labels = at::cat(labels).unsqueeze(0);
  one.positions = at::cat(positions).unsqueeze(0), one.lengths = at::full({1}, one.ids.size(1), at::kLong);
  one.pieces = {lengths};
  return one;
}

TEST(Packing, OneRowGivesTheLossAndTheGradientsOfRowsOfTheirOwn) {
  for (const std::int64_t window : {0, 20}) {
    ModelConfig config = block_config();
    config.decoder.sliding_window = window;
    const auto model = block_model(config, c10::kFloat, true);
    train_everything_but(*model, "");
    const Tensors wanted = step(*model, ragged_batch(), false);
    expect_near(wanted, step(*model, packed(ragged_batch()), false), 1e-5);
    expect_near(wanted, step(*model, packed(ragged_batch()), true), 1e-5);
  }
}

TEST(Packing, PieceStartsRunOverAllRowsToTheEnd) {
  EXPECT_TRUE(at::equal(piece_starts({{3, 2}, {1, 4}}), at::tensor({0, 3, 5, 6, 10}, at::kInt)));
}

TEST(Packing, ChangingASampleLeavesTheOthersBitsAlone) {
  const auto model = block_model(block_config(), c10::kFloat, false);
  const at::NoGradGuard no_grad;
  for (const bool fused : {true, false}) {
    fused::set_blocks_enabled(fused);
    MultimodalBatch batch = packed(ragged_batch());
    const at::Tensor before = model->logits(model->decode(model->embed(batch), batch))[0];
    batch.ids[0].narrow(0, 113, 5).fill_(3);  // the middle one
    const at::Tensor after = model->logits(model->decode(model->embed(batch), batch))[0];
    EXPECT_TRUE(at::equal(before.slice(0, 0, 113), after.slice(0, 0, 113)));
    EXPECT_TRUE(at::equal(before.slice(0, 118), after.slice(0, 118)));
    EXPECT_FALSE(at::equal(before, after));
  }
  fused::set_blocks_enabled(true);
}

TEST(LinearCrossEntropy, RefusesATargetOutsideTheHead) {
  const at::Tensor head = at::randn({10, 4}), hidden = at::randn({2, 4});
  EXPECT_ANY_THROW(linear_cross_entropy(hidden, head, at::tensor({3, 10}), 8));
  EXPECT_ANY_THROW(linear_cross_entropy(hidden, head, at::tensor({-1, 3}), 8));
}

}  // namespace
}  // namespace llava::test
