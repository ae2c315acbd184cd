#include "vision/anyres.h"

#include <gtest/gtest.h>

#include "base/json.h"
#include "recipe/recipe.h"
#include "support/golden.h"
#include "vision/media_plan.h"

namespace llava {
namespace {

struct Vector {
  ImageSize size, page;
  std::int64_t rows, columns, tokens;
};

MediaPlan plan_of(const char* recipe, const ImageSize& size) {
  const Recipe& r = find_recipe(recipe);
  return plan_media(size, *r.image_policy, r.model);
}

void expect_vectors(const char* recipe, const std::vector<Vector>& vectors) {
  for (const Vector& v : vectors) {
    const MediaPlan plan = plan_of(recipe, v.size);
    const std::string name = fmt::format("{} {}x{}", recipe, v.size.width, v.size.height);
    EXPECT_EQ(plan.page->page, v.page) << name;
    EXPECT_EQ(plan.layout.capped_rows, v.rows) << name;
    EXPECT_EQ(plan.layout.capped_columns, v.columns) << name;
    EXPECT_EQ(plan.token_count, v.tokens) << name;
  }
}

// The vectors of specification 1.4.4: the original code's order of the pinpoints.
TEST(AnyRes, PlansLlavaNextAsPublished) {
  expect_vectors("llava-next-vicuna-7b", {{{640, 480}, {672, 672}, 36, 48, 2340},
                                          {{480, 640}, {672, 672}, 48, 36, 2352},
                                          {{500, 500}, {672, 672}, 48, 48, 2928},
                                          {{672, 672}, {672, 672}, 48, 48, 2928},
                                          {{1000, 1000}, {672, 672}, 48, 48, 2928},
                                          {{1024, 899}, {672, 672}, 42, 48, 2634},
                                          {{899, 1024}, {672, 672}, 48, 42, 2640},
                                          {{1920, 1080}, {672, 672}, 28, 48, 1948},
                                          {{1080, 1920}, {672, 672}, 48, 28, 1968},
                                          {{100, 1000}, {336, 1008}, 72, 8, 1224},
                                          {{4000, 300}, {1008, 336}, 6, 72, 1014},
                                          {{336, 336}, {336, 672}, 24, 24, 1176}});
  EXPECT_EQ(plan_of("llava-next-vicuna-7b", {200, 150}).token_count, 1026);
}

// The vectors of specification 1.6.
TEST(AnyRes, PlansOneVisionAsPublished) {
  expect_vectors("llava-onevision-7b", {{{300, 300}, {384, 384}, 27, 27, 1485},
                                        {{336, 336}, {384, 384}, 27, 27, 1485},
                                        {{384, 384}, {384, 384}, 27, 27, 1485},
                                        {{200, 150}, {384, 384}, 21, 27, 1317},
                                        {{100, 1000}, {384, 1152}, 81, 9, 1539},
                                        {{640, 480}, {768, 768}, 40, 54, 2929},
                                        {{500, 500}, {768, 768}, 54, 54, 3699},
                                        {{1024, 899}, {1152, 1152}, 71, 81, 6551},
                                        {{1200, 800}, {1536, 1152}, 73, 108, 8686},
                                        {{1920, 1080}, {1920, 1152}, 60, 108, 7269},
                                        {{1080, 1920}, {1152, 1920}, 108, 60, 7317},
                                        {{4000, 300}, {2304, 384}, 13, 162, 2848},
                                        {{2304, 2304}, {2304, 2304}, 81, 81, 7371},
                                        {{3000, 3000}, {2304, 2304}, 81, 81, 7371}});
}

// HF's own processors on 164 sizes, with its (height, width) order of the pinpoints.
TEST(AnyRes, EqualsTransformersOnManySizes) {
  LLAVA_GOLDEN_OR_SKIP(path, "preproc.json");
  const Json table = read_json_file(path).at("anyres");
  const auto with_pinpoints = [&](const char* recipe, const char* key) {
    Recipe r = find_recipe(recipe);
    r.image_policy->grid_pinpoints =
        grid_pinpoints_from_json(table.at(key), PinpointOrder::kHeightWidth, key);
    return r;
  };
  const Recipe next = with_pinpoints("llava-next-vicuna-7b", "next_pinpoints");
  const Recipe onevision = with_pinpoints("llava-onevision-7b", "onevision_pinpoints");
  for (const Json& row : table.at("rows")) {
    const ImageSize size{row.at("width").get<std::int64_t>(), row.at("height").get<std::int64_t>()};
    for (const auto& [recipe, key] : {std::pair(&next, "next"), std::pair(&onevision, "onevision")}) {
      const MediaPlan plan = plan_media(size, *recipe->image_policy, recipe->model);
      EXPECT_EQ(Json({plan.page->page.height, plan.page->page.width}), row.at(key)) << row.dump();
      EXPECT_EQ(plan.token_count, row.at(std::string(key) + "_tokens")) << key << row.dump();
    }
  }
}

TEST(AnyRes, ViewsCoverThePageOnceWithTheOverviewFirst) {
  const Recipe& r = find_recipe("llava-next-vicuna-7b");
  const AnyResPage page = anyres_page({640, 480}, r.image_policy->grid_pinpoints, 336);
  EXPECT_EQ(page.resized, (ImageSize{672, 504}));
  EXPECT_EQ(page.top, 84);
  const std::vector<TileGeometry> views = anyres_views({640, 480}, page, 336);
  ASSERT_EQ(views.size(), 5U);
  EXPECT_EQ(views[0].resized, (ImageSize{336, 336}));
  EXPECT_EQ(views[2].left, 336);
  EXPECT_EQ(views[2].top, -84);
  EXPECT_EQ(views[3].left, 0);
  EXPECT_EQ(views[3].top, 252);
}

TEST(AnyRes, SeveralImagesAreNotTiledWhereTheModelTilesSingleOnes) {
  const Recipe& r = find_recipe("llava-onevision-7b");
  const MediaPlan plan = plan_media({640, 480}, *r.image_policy, r.model, 2);
  EXPECT_EQ(plan.num_tiles, 1);
  EXPECT_EQ(plan.token_count, 730);
  const Recipe& next = find_recipe("llava-next-vicuna-7b");
  EXPECT_EQ(plan_media({640, 480}, *next.image_policy, next.model, 2).token_count, 2340);
}

TEST(AnyRes, VideosCountPooledFramesAndNewlines) {
  const auto tokens = [](const char* recipe, std::int64_t frames) {
    const Recipe& r = find_recipe(recipe);
    return plan_video({640, 480}, frames, *r.image_policy, r.model).token_count;
  };
  EXPECT_EQ(tokens("llava-onevision-7b", 32), 6273);
  EXPECT_EQ(tokens("llava-video-7b", 64), 11648);
  EXPECT_EQ(tokens("llava-next-video-7b", 8), 8 * 144);
}

TEST(AnyRes, AbsurdShapesArePlannedAndRendered) {
  const Recipe& r = find_recipe("llava-next-vicuna-7b");
  for (const ImageSize size : {ImageSize{1, 1}, ImageSize{1, 20000}, ImageSize{20000, 1}, ImageSize{65000, 3}}) {
    const MediaPlan plan = plan_media(size, *r.image_policy, r.model);
    EXPECT_GE(plan.token_count, 576) << size.width;
    const Image image{size.width, size.height,
                      std::vector<std::uint8_t>(static_cast<std::size_t>(size.width * size.height * 3), 200)};
    for (const Image& tile : render_tiles(image, plan, *r.image_policy))
      EXPECT_EQ(tile.rgb.size(), 336U * 336U * 3U);
  }
}

TEST(AnyRes, RefusesPinpointsThatNoTilesFill) {
  EXPECT_THROW(anyres_page({10, 10}, {}, 336), Error);
  EXPECT_THROW(anyres_page({10, 10}, {{336, 500}}, 336), Error);
}

}  // namespace
}  // namespace llava
