#include "batch/collate.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/error.h"

namespace llava {
namespace {

ModelConfig model_with(std::int64_t pad_id) {
  ModelConfig model;
  model.decoder.vocab_size = 100;
  model.pad_token_id = pad_id;
  return model;
}

Prompt prompt(std::vector<std::int64_t> ids, std::vector<MediaSpan> spans = {}) {
  Prompt p;
  p.ids = std::move(ids);
  p.media_spans = std::move(spans);
  return p;
}

TEST(Collate, PadsOnTheRightAndKeepsLengths) {
  Prompt a = prompt({5, 6, 7}), b = prompt({8});
  a.labels = {-100, 6, 7};
  b.labels = {-100};
  b.positions = {4};
  const std::vector<CollateRow> rows = {{&a, {}, MediaForm::kPixels}, {&b, {}, MediaForm::kPixels}};
  const MultimodalBatch batch = collate(rows, model_with(99));
  EXPECT_TRUE(at::equal(batch.ids, torch::tensor({{5, 6, 7}, {8, 99, 99}}, at::kLong)));
  EXPECT_TRUE(at::equal(batch.labels, torch::tensor({{-100, 6, 7}, {-100, -100, -100}}, at::kLong)));
  EXPECT_TRUE(at::equal(batch.positions, torch::tensor({{0, 1, 2}, {4, 0, 0}}, at::kLong)));
  EXPECT_TRUE(at::equal(batch.lengths, torch::tensor({3, 1}, at::kLong)));
  EXPECT_FALSE(batch.branch.defined());
  EXPECT_FALSE(batch.media_rows.defined());
  EXPECT_FALSE(batch.pixels.defined());
}

TEST(Collate, ListsMediaRowsInOrderAndHidesTheSentinel) {
  const Prompt a = prompt({1, -200, -200, 2}, {{1, 2, 0}}),
               b = prompt({-200, -200, 3, -200, -200}, {{0, 2, 0}, {3, 2, 1}});
  const std::vector<CollateRow> rows = {
      {&a, {at::full({1, 3, 2, 2}, 1.0)}, MediaForm::kPixels},
      {&b, {at::full({1, 3, 2, 2}, 2.0), at::full({1, 3, 2, 2}, 3.0)}, MediaForm::kPixels}};
  const MultimodalBatch batch = collate(rows, model_with(-1));
  EXPECT_TRUE(at::equal(batch.media_rows, torch::tensor({1, 2, 5, 6, 8, 9}, at::kLong)));
  EXPECT_GE(batch.ids.min().item<std::int64_t>(), 0);
  EXPECT_EQ(batch.pixels.sizes().vec(), (std::vector<std::int64_t>{3, 3, 2, 2}));
  EXPECT_EQ(batch.pixels[2][0][0][0].item<float>(), 3.0f);
}

TEST(Collate, PutsCachedFeaturesWherePixelsWouldBe) {
  const Prompt a = prompt({1, 7, 7}, {{1, 2, 0}});
  const std::vector<CollateRow> rows = {{&a, {at::ones({1, 2, 8})}, MediaForm::kFeatures}};
  const MultimodalBatch batch = collate(rows, model_with(0));
  EXPECT_TRUE(batch.features.defined());
  EXPECT_FALSE(batch.pixels.defined());
}

TEST(Collate, PacksRowsOneBehindTheOther) {
  Prompt a = prompt({5, -200, 7}, {{1, 1, 0}}), b = prompt({8, -200}, {{1, 1, 0}});
  a.labels = {-100, -100, 7};
  b.labels = {8, -100};
  const std::vector<CollateRow> rows = {{&a, {at::full({1, 3, 2, 2}, 1.0)}, MediaForm::kPixels},
                                        {&b, {at::full({1, 3, 2, 2}, 2.0)}, MediaForm::kPixels}};
  const MultimodalBatch batch = collate_packed(rows, model_with(99));
  EXPECT_TRUE(at::equal(batch.ids, torch::tensor({{5, 0, 7, 8, 0}}, at::kLong)));
  EXPECT_TRUE(at::equal(batch.labels, torch::tensor({{-100, -100, 7, -100, -100}}, at::kLong)))
      << "the first token of a sample is nobody's next one";
  EXPECT_TRUE(at::equal(batch.positions, torch::tensor({{0, 1, 2, 0, 1}}, at::kLong)));
  EXPECT_TRUE(at::equal(batch.lengths, torch::tensor({5}, at::kLong)));
  EXPECT_EQ(batch.pieces, (std::vector<std::vector<std::int64_t>>{{3, 2}}));
  EXPECT_TRUE(at::equal(batch.media_rows, torch::tensor({1, 4}, at::kLong)));
  EXPECT_EQ(batch.pixels[1][0][0][0].item<float>(), 2.0f);
  b.branch = {0, 1};
  EXPECT_THROW(collate_packed(rows, model_with(99)), Error);
}

TEST(Collate, CarriesBranches) {
  Prompt a = prompt({1, 2, 3}), b = prompt({4, 5});
  a.branch = {0, 1, 2};
  const std::vector<CollateRow> rows = {{&a, {}, MediaForm::kPixels}, {&b, {}, MediaForm::kPixels}};
  EXPECT_TRUE(
      at::equal(collate(rows, model_with(0)).branch, torch::tensor({{0, 1, 2}, {0, 0, 0}}, at::kInt)));
}

TEST(Collate, RefusesRowsThatDoNotFit) {
  const Prompt a = prompt({1, 7, 7}, {{1, 2, 0}}), late = prompt({1, 7}, {{1, 2, 0}}), empty = prompt({});
  const at::Tensor pixels = at::ones({1, 3, 2, 2});
  const auto collate_rows = [](std::vector<CollateRow> rows) { return collate(rows, model_with(0)); };
  EXPECT_ANY_THROW(collate_rows({}));
  EXPECT_ANY_THROW(collate_rows({{&a, {}, MediaForm::kPixels}}));
  EXPECT_ANY_THROW(collate_rows({{&late, {pixels}, MediaForm::kPixels}}));
  EXPECT_ANY_THROW(collate_rows({{&empty, {}, MediaForm::kPixels}}));
  EXPECT_ANY_THROW(collate_rows({{&a, {pixels}, MediaForm::kPixels}, {&a, {at::ones({1, 2, 8})}, MediaForm::kFeatures}}));
}

}  // namespace
}  // namespace llava
