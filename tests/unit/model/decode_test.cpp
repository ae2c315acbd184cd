// Properties of decoding: cached = full, batch = singles, branches = separate sequences, windows.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"
#include "model_golden.h"
#include "toy_model.h"

namespace llava::test {
namespace {

at::Tensor random_ids(std::int64_t count, std::uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randint(0, 70, {count}, generator, at::kLong);
}

MultimodalBatch slice_of(const at::Tensor& ids, std::int64_t begin, std::int64_t end) {
  MultimodalBatch batch = batch_of(ids.slice(0, begin, end), {}, -1);
  batch.positions = at::arange(begin, end).unsqueeze(0);
  return batch;
}

enum class Variant { kPlain, kWindow, kSecondLayerWindow, kBiasedTied, kYarn };

ModelConfig config_of(Variant variant) {
  ModelConfig config = toy_config();
  DecoderConfig& d = config.decoder;
  switch (variant) {
    case Variant::kPlain:
      break;
    case Variant::kWindow:
      d.sliding_window = 5;
      break;
    case Variant::kSecondLayerWindow:
      d.sliding_window = 5, d.first_sliding_layer = 1;
      break;
    case Variant::kBiasedTied:
      d.attention_bias = d.attention_out_bias = d.mlp_bias = d.tie_word_embeddings = true;
      break;
    case Variant::kYarn:
      d.rope_scaling = {.type = RopeType::kYarn, .factor = 4.0};
      break;
  }
  return config;
}

class Decoding : public testing::TestWithParam<Variant> {};

TEST_P(Decoding, InChunksThroughTheCacheEqualsOneFullPass) {
  const auto model = toy_model(config_of(GetParam()));
  const at::Tensor ids = random_ids(23, 3);
  const at::Tensor full = full_logits(*model, slice_of(ids, 0, 23));
  const at::NoGradGuard no_grad;
  auto cache = model->make_cache(1, 40);
  std::vector<at::Tensor> parts;
  for (const auto& [begin, end] : {std::pair{0, 7}, {7, 8}, {8, 14}, {14, 22}, {22, 23}}) {
    const auto chunk = slice_of(ids, begin, end);
    parts.push_back(model->logits(model->decode(model->embed(chunk), chunk, cache.get())));
  }
  EXPECT_LE(max_abs_diff(at::cat(parts, 1), full), 2e-5);
  EXPECT_EQ(cache->lengths()[0], 23);
}

TEST_P(Decoding, ABatchOfUnequalRowsEqualsItsSingles) {
  const auto model = toy_model(config_of(GetParam()));
  const std::vector<at::Tensor> rows = {random_ids(9, 1), random_ids(17, 2), random_ids(1, 3),
                                        random_ids(12, 4)};
  const MultimodalBatch together = batch_of_rows(rows, {}, -1);
  const Greedy all = greedy(*model, together, 12);
  const at::Tensor prefill = full_logits(*model, together);
  for (std::size_t b = 0; b < rows.size(); ++b) {
    const auto row = static_cast<std::int64_t>(b);
    const MultimodalBatch one = batch_of(rows[b], {}, -1);
    const Greedy alone = greedy(*model, one, 12);
    EXPECT_TRUE(at::equal(all.ids[row], alone.ids[0])) << "row " << b;
    EXPECT_LE(max_abs_diff(all.logits[row], alone.logits[0]), 2e-5) << "row " << b;
    EXPECT_LE(max_abs_diff(prefill[row].narrow(0, 0, rows[b].numel()), full_logits(*model, one)[0]), 2e-5);
  }
}

TEST_P(Decoding, GreedyStepsEqualAFullPassOverTheSameTokens) {
  const auto model = toy_model(config_of(GetParam()));
  const at::Tensor prompt = random_ids(8, 5);
  const Greedy found = greedy(*model, batch_of(prompt, {}, -1), 10);
  const at::Tensor whole = at::cat({prompt, found.ids[0]});
  EXPECT_LE(max_abs_diff(full_logits(*model, batch_of(whole, {}, -1))[0].slice(0, 7, 17), found.logits[0]),
            2e-5);
}

INSTANTIATE_TEST_SUITE_P(Variants, Decoding,
                         testing::Values(Variant::kPlain, Variant::kWindow, Variant::kSecondLayerWindow,
                                         Variant::kBiasedTied, Variant::kYarn));

TEST(DynamicRope, ARowsResultDoesNotDependOnItsBatch) {
  ModelConfig config = toy_config();
  config.decoder.max_position_embeddings = 8;
  config.decoder.rope_scaling = {.type = RopeType::kDynamic, .factor = 2.0};
  const auto model = toy_model(config);
  const std::vector<at::Tensor> rows = {random_ids(6, 1), random_ids(30, 2), random_ids(12, 3)};
  const at::Tensor together = full_logits(*model, batch_of_rows(rows, {}, -1));
  for (std::size_t b = 0; b < rows.size(); ++b)
    EXPECT_LE(max_abs_diff(together[static_cast<std::int64_t>(b)].narrow(0, 0, rows[b].numel()),
                           full_logits(*model, batch_of(rows[b], {}, -1))[0]),
              2e-5);
}

TEST(Branches, SeeTheirPrefixAndThemselvesOnly) {
  for (const Variant variant : {Variant::kPlain, Variant::kWindow}) {
    const auto model = toy_model(config_of(variant));
    const at::Tensor prefix = random_ids(6, 1), first = random_ids(5, 2), second = random_ids(7, 3);
    MultimodalBatch batch = batch_of(at::cat({prefix, first, second}), {}, -1);
    batch.positions = at::cat({at::arange(6), at::arange(6, 11), at::arange(6, 13)}).unsqueeze(0);
    batch.branch = at::cat({at::zeros(6), at::ones(5), at::full(7, 2)}).to(at::kInt).unsqueeze(0);
    const at::Tensor together = full_logits(*model, batch)[0];
    const at::Tensor one = full_logits(*model, batch_of(at::cat({prefix, first}), {}, -1))[0];
    const at::Tensor two = full_logits(*model, batch_of(at::cat({prefix, second}), {}, -1))[0];
    EXPECT_LE(max_abs_diff(together.slice(0, 0, 11), one), 2e-5);
    EXPECT_LE(max_abs_diff(together.slice(0, 11), two.slice(0, 6)), 2e-5);
  }
}

TEST(Branches, CannotBeCachedAndTheirFirstTokenCannotBeTrained) {
  const auto model = toy_model(toy_config());
  MultimodalBatch batch = batch_of(random_ids(6, 1), {}, -1);
  batch.branch = at::tensor({0, 0, 0, 1, 1, 1}, at::kInt).unsqueeze(0);
  auto cache = model->make_cache(1, 16);
  EXPECT_THROW(model->decode(model->embed(batch), batch, cache.get()), Error);
  batch.labels = at::tensor({-100, -100, -100, 5, 5, 5}, at::kLong).unsqueeze(0);
  EXPECT_THROW(model->loss(batch), Error);
}

TEST(Cache, RefusesMoreThanItsCapacityAndForgetsOnTruncate) {
  const auto model = toy_model(toy_config());
  const at::NoGradGuard no_grad;
  const at::Tensor ids = random_ids(12, 1);
  auto cache = model->make_cache(1, 10);
  const auto first = slice_of(ids, 0, 8), too_much = slice_of(ids, 8, 12);
  model->decode(model->embed(first), first, cache.get());
  try {
    model->decode(model->embed(too_much), too_much, cache.get());
    FAIL() << "12 tokens fitted 10 slots";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kResource);
  }
  cache->truncate(5);
  const auto again = slice_of(ids, 5, 9);
  const at::Tensor found = model->logits(model->decode(model->embed(again), again, cache.get()));
  EXPECT_LE(max_abs_diff(found, full_logits(*model, slice_of(ids, 0, 9)).slice(1, 5)), 2e-5);
}

TEST(Embed, RefusesUnknownIdsAndFeatureCountsThatDoNotFit) {
  const auto model = toy_model(toy_config());
  EXPECT_THROW(model->embed(batch_of(at::tensor({1, 80}, at::kLong), {}, -1)), Error);
  EXPECT_THROW(model->embed(batch_of(at::tensor({1, -3}, at::kLong), {}, -1)), Error);
  const at::Tensor pixels = at::zeros({1, 3, 28, 28});
  EXPECT_THROW(model->embed(batch_of(at::tensor({79, 79, 79}, at::kLong), pixels, 79)), Error);
  EXPECT_NO_THROW(model->embed(batch_of(at::tensor({79, 79, 79, 79}, at::kLong), pixels, 79)));
  EXPECT_THROW(model->encode_vision(at::zeros({1, 3, 42, 42})), Error);
}

TEST(Embed, TextModelsHaveNoEyes) {
  ModelConfig config = toy_config();
  config.tower.reset();
  const auto model = toy_model(config);
  EXPECT_THROW(model->encode_vision(at::zeros({1, 3, 28, 28})), Error);
  EXPECT_THROW(model->project(at::zeros({1, 4, 16})), Error);
}

}  // namespace
}  // namespace llava::test
