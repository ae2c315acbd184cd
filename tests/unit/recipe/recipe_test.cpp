#include "recipe/recipe.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "base/yaml.h"

namespace llava {
namespace {

class EveryRecipe : public testing::TestWithParam<Recipe> {};

std::string recipe_name(const testing::TestParamInfo<Recipe>& info) {
  std::string name = info.param.name;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Table, EveryRecipe, testing::ValuesIn(recipe_table()), recipe_name);

TEST_P(EveryRecipe, IsConsistent) { EXPECT_NO_THROW(GetParam().model.validate()); }

TEST_P(EveryRecipe, IsFoundByItsName) { EXPECT_EQ(find_recipe(GetParam().name).name, GetParam().name); }

TEST_P(EveryRecipe, IsDetectedFromItsConfig) {
  const std::string detected = detect_recipe(GetParam().model);
  EXPECT_EQ(find_recipe(detected).model, GetParam().model) << detected;
}

TEST_P(EveryRecipe, IsDetectedWithAnotherVocabularyAndContext) {
  ModelConfig model = GetParam().model;
  model.decoder.vocab_size += 64;
  model.decoder.max_position_embeddings *= 2;
  EXPECT_EQ(detect_recipe(model), detect_recipe(GetParam().model));
}

TEST_P(EveryRecipe, PolicyFitsTheTower) {
  const Recipe& recipe = GetParam();
  ASSERT_EQ(recipe.image_policy.has_value(), recipe.model.tower.has_value());
  if (!recipe.image_policy) return;
  const ImagePolicy& policy = *recipe.image_policy;
  EXPECT_EQ(policy.center_crop ? policy.crop_height : policy.resize_height, recipe.model.tower->input_size);
}

TEST_P(EveryRecipe, KindSaysWhichPartsThereAre) {
  const Recipe& recipe = GetParam();
  EXPECT_EQ(recipe.kind == RecipeKind::kText, !recipe.model.tower.has_value());
  EXPECT_EQ(recipe.kind == RecipeKind::kVision,
            recipe.model.tower && recipe.model.connector.kind == ConnectorKind::kIdentity);
}

TEST_P(EveryRecipe, YamlHoldsTheWholeDescription) {
  const OrderedJson described = describe(GetParam());
  EXPECT_EQ(parse_yaml(to_yaml(described), "recipe"), described);
}

TEST(RecipeTable, NamesAreUnique) {
  std::set<std::string> names;
  for (const Recipe& recipe : recipe_table()) EXPECT_TRUE(names.insert(recipe.name).second) << recipe.name;
}

// Sizes published with the checkpoints.
TEST(RecipeTable, HasThePublishedParameterCounts) {
  const auto millions = [](const char* name) {
    return static_cast<double>(count_parameters(find_recipe(name).model).total()) / 1e6;
  };
  EXPECT_NEAR(millions("llava-1.5-7b"), 7063, 1);  // 6738 Vicuna + 303.5 CLIP + 21 projector
  EXPECT_NEAR(millions("llava-1.5-13b"), 13351, 1);
  EXPECT_NEAR(millions("llama-7b"), 6738.4, 0.1);
  EXPECT_NEAR(millions("llama-1.1b"), 1100.0, 0.1);
  EXPECT_NEAR(millions("smollm2-135m"), 134.5, 0.1);
  EXPECT_NEAR(millions("llama-3-8b"), 8030.3, 0.1);
  EXPECT_NEAR(millions("mistral-7b"), 7241.7, 0.1);
  EXPECT_NEAR(millions("qwen2-7b"), 7615.6, 0.1);
  EXPECT_NEAR(millions("qwen2-0.5b"), 494.0, 0.1);
}

TEST(RecipeTable, ImageTokenCountsAreTheSpecifications) {
  EXPECT_EQ(find_recipe("llava-1.5-7b").model.num_image_tokens(), 576);
  EXPECT_EQ(find_recipe("llava-v1-7b").model.num_image_tokens(), 256);
  EXPECT_EQ(find_recipe("llava-nano").model.num_image_tokens(), 65);
}

TEST(DetectRecipe, NamesTheFamilyAtAnotherSize) {
  ModelConfig model = find_recipe("llava-1.5-7b").model;
  model.decoder.num_hidden_layers = 2;
  EXPECT_EQ(detect_recipe(model), "llava-1.5");
  model.connector.kind = ConnectorKind::kLinear;
  model.connector.depth = 1;
  EXPECT_EQ(detect_recipe(model), "llava-v1");
}

TEST(FindRecipe, SuggestsTheNearestName) {
  try {
    find_recipe("llava-1.5-7");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what()).find("llava-1.5-7b"), std::string::npos);
  }
}

}  // namespace
}  // namespace llava
