#include <gtest/gtest.h>

#include <string>

#include "vision/media_plan.h"
#include "vision_golden.h"

// The project's preprocessing goldens: files through the whole path, as HF's slow processors give them.
namespace llava {
namespace {

struct Kind {
  std::string name;
  ImagePolicy policy;
};

Kind kind_of(const std::string& name) {
  ImagePolicy policy;
  const std::int64_t side = std::stoll(name.substr(name.find_first_of("0123456789")));
  policy.resize_height = policy.resize_width = policy.crop_height = policy.crop_width = side;
  if (name.starts_with("pad")) policy.aspect_ratio = AspectRatio::kPad;
  if (name.starts_with("siglip")) {
    policy.resize = ResizeMode::kSquash;
    policy.center_crop = false;
    policy.mean = policy.std = {0.5, 0.5, 0.5};
  }
  return {name, policy};
}

MediaPlan plan_of(const Image& image, const ImagePolicy& policy) {
  return {.original = {image.width, image.height},
          .num_tiles = 1,
          .tile_height = policy.crop_height,
          .tile_width = policy.crop_width};
}

TEST(PreprocGolden, EveryImageKindIsPixelEqual) {
  LLAVA_GOLDEN_OR_SKIP(path, "preproc.safetensors");
  LLAVA_GOLDEN_OR_SKIP(images, "images");
  const auto golden = open_safetensors(path);
  int compared = 0;
  for (const TensorView& view : golden->tensors()) {
    const std::string group = view.name.substr(0, view.name.find('/')),
                      file = view.name.substr(group.size() + 1);
    if (group == "float" || group.starts_with("anyres")) continue;
    const Kind kind = kind_of(group);
    const Image image = load_image(images / file);
    const Image tile = render_tiles(image, plan_of(image, kind.policy), kind.policy)[0];
    const int allowed = file.starts_with("cmyk") ? 3 : 0;  // libjpeg versions differ in CMYK
    EXPECT_LE(test::max_difference(tile, test::image_of(*golden, view.name)), allowed) << view.name;
    ++compared;
  }
  EXPECT_GE(compared, 20);
}

/// The goldens' own: LLaVA-NeXT's pinpoints at a sixth, in (height, width).
ImagePolicy anyres56() {
  ImagePolicy policy = kind_of("clip56").policy;
  policy.aspect_ratio = AspectRatio::kAnyRes;
  policy.grid_pinpoints = {{112, 56}, {56, 112}, {112, 112}, {56, 168}, {168, 56}};
  return policy;
}

TEST(PreprocGolden, TilesArePixelEqual) {
  LLAVA_GOLDEN_OR_SKIP(path, "preproc.safetensors");
  LLAVA_GOLDEN_OR_SKIP(images, "images");
  const auto golden = open_safetensors(path);
  ModelConfig model;
  model.tower = TowerConfig{.image_size = 56, .input_size = 56};
  model.media.merge = TileMerge::kSpatialUnpad;
  int compared = 0;
  for (const TensorView& view : golden->tensors()) {
    if (!view.name.starts_with("anyres56/")) continue;
    const Image image = load_image(images / view.name.substr(9));
    const MediaPlan plan = plan_media({image.width, image.height}, anyres56(), model);
    ASSERT_EQ(view.shape, (std::vector<std::int64_t>{plan.num_tiles, 56, 56, 3})) << view.name;
    std::string pixels;
    for (const Image& tile : render_tiles(image, plan, anyres56()))
      pixels.append(reinterpret_cast<const char*>(tile.rgb.data()), tile.rgb.size());
    EXPECT_TRUE(pixels == std::string_view(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()))
        << view.name;
    ++compared;
  }
  EXPECT_GE(compared, 5);
}

TEST(PreprocGolden, NormalisedPixelsAreEqual) {
  LLAVA_GOLDEN_OR_SKIP(path, "preproc.safetensors");
  LLAVA_GOLDEN_OR_SKIP(images, "images");
  const auto golden = open_safetensors(path);
  for (const std::string group : {"clip112", "siglip112"}) {
    const Kind kind = kind_of(group);
    const Image image = load_image(images / "rgb_640x480.png");
    const std::vector<float> pixels = render_pixels(image, plan_of(image, kind.policy), kind.policy);
    EXPECT_EQ(pixels, test::floats_of(*golden, "float/" + group + "/rgb_640x480.png")) << group;
  }
}

}  // namespace
}  // namespace llava
