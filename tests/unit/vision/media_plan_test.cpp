#include "vision/media_plan.h"

#include <gmock/gmock.h>

#include "vision_golden.h"

namespace llava {
namespace {

using testing::HasSubstr;

ModelConfig model_with(std::int64_t side, TowerKind kind = TowerKind::kClip) {
  ModelConfig model;
  model.tower.emplace();
  model.tower->kind = kind;
  model.tower->image_size = model.tower->input_size = side;
  return model;
}

ImagePolicy clip_policy(std::int64_t side) {
  ImagePolicy policy;
  policy.resize_height = policy.resize_width = policy.crop_height = policy.crop_width = side;
  return policy;
}

Image flat(std::int64_t width, std::int64_t height, std::uint8_t value) {
  return {width, height, std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * 3), value)};
}

TEST(PlanMedia, CountsTheTokensTheModelWillSplice) {
  for (const ImageSize size : {ImageSize{640, 480}, ImageSize{1, 1}, ImageSize{3, 500}}) {
    const MediaPlan plan = plan_media(size, clip_policy(336), model_with(336));
    EXPECT_EQ(plan.token_count, 576);
    EXPECT_EQ(plan.num_tiles, 1);
    EXPECT_EQ(plan.tile_height, 336);
    EXPECT_EQ(plan.tile_width, 336);
    EXPECT_EQ(plan.original, size);
  }
  ModelConfig with_cls = model_with(336);
  with_cls.tower->select_feature = SelectFeature::kClsPatch;
  EXPECT_EQ(plan_media({9, 9}, clip_policy(336), with_cls).token_count, 577);
  ModelConfig merged = model_with(224, TowerKind::kDinov2);
  merged.connector.patch_merge = 2;
  EXPECT_EQ(plan_media({9, 9}, clip_policy(224), merged).token_count, 64);
}

TEST(PlanMedia, RefusesWhatTheTowerCannotTake) {
  const auto error_of = [](const ImageSize& size, const ImagePolicy& policy,
                           const ModelConfig& model) -> std::string {
    try {
      plan_media(size, policy, model);
    } catch (const Error& e) {
      return e.what();
    }
    return "(accepted)";
  };
  EXPECT_THAT(error_of({8, 8}, clip_policy(224), ModelConfig{}), HasSubstr("no vision tower"));
  EXPECT_THAT(error_of({8, 8}, clip_policy(224), model_with(336)),
              HasSubstr("to 224 x 224, but the vision tower takes 336"));
  EXPECT_THAT(error_of({0, 8}, clip_policy(336), model_with(336)), HasSubstr("an image of 0 x 8"));
  ImagePolicy uncropped = clip_policy(336);
  uncropped.center_crop = false;
  EXPECT_THAT(error_of({640, 480}, uncropped, model_with(336)), HasSubstr("448 x 336"));
  EXPECT_THAT(error_of({20000, 1}, uncropped, model_with(336)), HasSubstr("a side may be 1 to 8192"));
}

TEST(RenderTiles, HandlesExtremeShapesInLittleTimeAndMemory) {
  ImagePolicy policy = clip_policy(336);
  const ModelConfig model = model_with(336);
  for (const AspectRatio ratio : {AspectRatio::kSquare, AspectRatio::kPad}) {
    policy.aspect_ratio = ratio;
    for (const ImageSize size :
         {ImageSize{1, 20000}, ImageSize{20000, 1}, ImageSize{65500, 2}, ImageSize{1, 1}}) {
      const std::vector<Image> tiles =
          render_tiles(flat(size.width, size.height, 50), plan_media(size, policy, model), policy);
      ASSERT_EQ(tiles.size(), 1u);
      EXPECT_EQ(tiles[0].width, 336);
      EXPECT_EQ(tiles[0].height, 336);
    }
  }
}

TEST(RenderTiles, FillsPaddingWithTheTruncatedMeanColour) {
  ImagePolicy policy = clip_policy(8);
  policy.aspect_ratio = AspectRatio::kPad;
  const Image tile = render_tiles(flat(8, 2, 200),
                                  plan_media({8, 2}, policy,
                                             [] {
                                               ModelConfig model = model_with(8);
                                               model.tower->patch_size = 4;
                                               return model;
                                             }()),
                                  policy)[0];
  EXPECT_THAT(std::vector<std::uint8_t>(tile.rgb.begin(), tile.rgb.begin() + 3),
              testing::ElementsAre(122, 116, 104));
  EXPECT_EQ(tile.rgb[(3 * 8 + 4) * 3], 200);  // the two rows sit at 3 and 4
  EXPECT_EQ(tile.rgb[(4 * 8 + 4) * 3], 200);
  EXPECT_EQ(tile.rgb[(5 * 8 + 4) * 3], 122);
}

TEST(RenderPixels, EqualsTheSlowProcessorsBitForBit) {
  LLAVA_GOLDEN_OR_SKIP(json_path, "vision/policies.json");
  LLAVA_GOLDEN_OR_SKIP(values_path, "vision/policies.safetensors");
  LLAVA_GOLDEN_OR_SKIP(images_path, "vision/resize.safetensors");
  const Json cases = read_json_file(json_path).at("cases");
  const auto values = open_safetensors(values_path), images = open_safetensors(images_path);
  ASSERT_EQ(cases.size(), 20u);
  for (const auto& [name, entry] : cases.items()) {
    const ImagePolicy policy = image_policy_from_json(entry.at("config"));
    const Image image = test::image_of(*images, "source/" + entry.at("image").get<std::string>());
    const TensorView* view = values->find(name);
    ASSERT_NE(view, nullptr) << name;
    const MediaPlan plan{.original = {image.width, image.height},
                         .num_tiles = 1,
                         .tile_height = view->shape[1],
                         .tile_width = view->shape[2]};
    EXPECT_EQ(render_pixels(image, plan, policy), test::floats_of(*values, name)) << name;
  }
}

}  // namespace
}  // namespace llava
