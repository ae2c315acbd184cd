// Every recipe of the table at toy size: its design runs forward and backward, and its plans say how many rows there are.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cctype>

#include "base/rng.h"
#include "loader/load_model.h"
#include "model_golden.h"
#include "recipe/recipe.h"
#include "vision/media_plan.h"

namespace llava::test {
namespace {

constexpr std::int64_t kWidth = 32, kHeadDim = 8, kVocabulary = 48, kImageToken = kVocabulary - 1;

/// The recipe's design with little of everything: 4 features a side after the connector's merge.
Recipe toy(Recipe recipe) {
  ModelConfig& m = recipe.model;
  DecoderConfig& d = m.decoder;
  const std::int64_t groups = d.num_attention_heads / d.num_key_value_heads;
  d.hidden_size = kWidth, d.head_dim = kHeadDim, d.intermediate_size = 40, d.num_hidden_layers = 2;
  d.num_attention_heads = 4, d.num_key_value_heads = groups > 2 ? 1 : 4 / groups;
  d.vocab_size = kVocabulary, d.max_position_embeddings = 8192;
  d.first_sliding_layer = std::min<std::int64_t>(d.first_sliding_layer, 1);
  m.image_token_id = kImageToken;
  m.media.video_token_id = -1;
  if (!m.tower) return recipe;
  TowerConfig& t = *m.tower;
  const std::int64_t old_side = t.input_size, side = 4 * m.connector.patch_merge * t.patch_size;
  std::int64_t deepest = 4;
  for (const std::int64_t layer : t.select_layers) deepest = std::max(deepest, std::abs(layer) + 1);
  t.hidden_size = 16, t.intermediate_size = 24, t.num_attention_heads = 2, t.num_hidden_layers = deepest;
  t.image_size = t.input_size = side;
  m.connector.in_size = t.hidden_size * static_cast<std::int64_t>(t.select_layers.size());
  m.connector.hidden_size = kWidth;
  if (m.compressor) {
    m.compressor->size = std::min<std::int64_t>(m.compressor->size, 2);
    m.compressor->prefusion_layer_num = 1;
  }
  ImagePolicy& policy = *recipe.image_policy;
  policy.resize_height = policy.resize_width = policy.crop_height = policy.crop_width = side;
  for (GridPinpoint& pin : policy.grid_pinpoints) pin = {pin.width / old_side * side, pin.height / old_side * side};
  return recipe;
}

std::unique_ptr<LlavaModel> model_of(const Recipe& recipe) { return random_model(recipe.model, 5, {}); }

/// A few words, the media's places, a few more.
MultimodalBatch batch_for(const MediaPlan* plan, Rng& rng) {
  std::vector<std::int64_t> ids;
  const auto words = [&] {
    for (int i = 0; i < 5; ++i) ids.push_back(1 + static_cast<std::int64_t>(rng.below(kVocabulary - 2)));
  };
  words();
  if (plan != nullptr) ids.insert(ids.end(), static_cast<std::size_t>(plan->token_count), kImageToken);
  words();
  const at::Tensor row = at::tensor(ids, at::kLong);
  at::Tensor pixels;
  if (plan != nullptr) {
    at::manual_seed(3);
    pixels = at::randn({plan->num_tiles, 3, plan->tile_height, plan->tile_width});
  }
  MultimodalBatch batch = batch_of(row, pixels, kImageToken);
  if (plan != nullptr) batch.media = {plan->layout};
  batch.labels = row.masked_fill(row.eq(kImageToken), -100).unsqueeze(0);
  return batch;
}

void expect_runs(LlavaModel& model, const MultimodalBatch& batch) {
  std::size_t trained = 0;
  for (auto& p : model.parameters()) {
    p.tensor.requires_grad_(true);
    p.tensor.mutable_grad() = at::Tensor();
  }
  const auto loss = model.loss(batch);
  ASSERT_GT(loss.tokens, 0);
  loss.sum.backward();
  ASSERT_TRUE(loss.sum.isfinite().item<bool>());
  for (auto& p : model.parameters()) {
    if (!p.tensor.grad().defined()) continue;
    ++trained;
    EXPECT_TRUE(p.tensor.grad().isfinite().all().item<bool>()) << p.name;
  }
  EXPECT_GT(trained, model.parameters().size() / 2);
}

/// A tower alone takes no prompt.
std::vector<Recipe> with_decoder() {
  std::vector<Recipe> recipes = recipe_table();
  std::erase_if(recipes, [](const Recipe& r) { return r.kind == RecipeKind::kVision; });
  return recipes;
}

class EveryRecipeAsAToy : public testing::TestWithParam<Recipe> {};

TEST_P(EveryRecipeAsAToy, RunsForwardAndBackwardWithAsManyRowsAsPlanned) {
  const Recipe recipe = toy(GetParam());
  const auto model = model_of(recipe);
  Rng rng(7);
  if (!recipe.model.tower) return expect_runs(*model, batch_for(nullptr, rng));
  for (const ImageSize& size : {ImageSize{64, 48}, ImageSize{500, 90}, ImageSize{33, 210}}) {
    SCOPED_TRACE(std::to_string(size.width));
    const MediaPlan plan = plan_media(size, *recipe.image_policy, recipe.model);
    expect_runs(*model, batch_for(&plan, rng));
  }
  const MediaPlan film = plan_video({64, 48}, 3, *recipe.image_policy, recipe.model);
  expect_runs(*model, batch_for(&film, rng));
}

INSTANTIATE_TEST_SUITE_P(Table, EveryRecipeAsAToy, testing::ValuesIn(with_decoder()), [](const auto& test) {
  std::string name = test.param.name;
  std::replace_if(name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
});

}  // namespace
}  // namespace llava::test
