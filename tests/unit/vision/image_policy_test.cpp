#include <gmock/gmock.h>

#include <string>

#include "support/golden.h"
#include "vision/media_plan.h"

namespace llava {
namespace {

using testing::HasSubstr;

Json processor(const std::string& type, const std::string& rest = "{}") {
  Json json = Json::parse(rest);
  json["image_processor_type"] = type;
  return json;
}

std::string error_of(const Json& json) {
  try {
    image_policy_from_json(json);
  } catch (const Error& e) {
    return e.what();
  }
  return "(accepted)";
}

TEST(ImagePolicyFromJson, MissingKeysTakeTheDefaultsOfTheClass) {
  LLAVA_GOLDEN_OR_SKIP(path, "vision/policies.json");
  const Json defaults = read_json_file(path).at("defaults");
  ASSERT_EQ(defaults.size(), 5u);
  for (const auto& [name, full] : defaults.items()) {
    EXPECT_EQ(image_policy_from_json(processor(name)), image_policy_from_json(full)) << name;
    EXPECT_EQ(image_policy_from_json(processor(name + "Fast")), image_policy_from_json(full)) << name;
  }
}

TEST(ImagePolicyFromJson, ReadsTheOldClipFile) {
  const ImagePolicy policy =
      image_policy_from_json(Json::parse(R"({"crop_size": 336, "do_center_crop": true,
    "do_normalize": true, "do_resize": true, "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3, "size": 336})"));
  EXPECT_EQ(policy, ImagePolicy{});
}

TEST(ImagePolicyFromJson, TakesSizeInEveryForm) {
  const auto read = [](const char* type, const char* size) {
    return image_policy_from_json(processor(type, std::string(R"({"size": )") + size + "}"));
  };
  for (const char* size :
       {"64", R"({"shortest_edge": 64})", R"({"shortest_edge": 64, "longest_edge": 99})"}) {
    const ImagePolicy policy = read("CLIPImageProcessor", size);
    EXPECT_EQ(policy.resize, ResizeMode::kShortestEdge) << size;
    EXPECT_EQ(policy.resize_height, 64) << size;
  }
  for (const char* size : {"[48, 64]", R"({"height": 48, "width": 64})"}) {
    const ImagePolicy policy = read("CLIPImageProcessor", size);
    EXPECT_EQ(policy.resize, ResizeMode::kSquash) << size;
    EXPECT_EQ(policy.resize_height, 48) << size;
    EXPECT_EQ(policy.resize_width, 64) << size;
  }
  EXPECT_EQ(read("SiglipImageProcessor", "384").resize, ResizeMode::kSquash);
  EXPECT_EQ(read("SiglipImageProcessor", "384").resize_width, 384);
}

TEST(ImagePolicyFromJson, PadsOnlyWhereDoPadMeansASquare) {
  EXPECT_EQ(image_policy_from_json(processor("LlavaImageProcessor", R"({"do_pad": true})")).aspect_ratio,
            AspectRatio::kPad);
  EXPECT_EQ(image_policy_from_json(processor("LlavaImageProcessor")).aspect_ratio, AspectRatio::kSquare);
  EXPECT_EQ(image_policy_from_json(processor("CLIPImageProcessorFast", R"({"do_pad": true})")).aspect_ratio,
            AspectRatio::kSquare);
}

TEST(ImagePolicyFromJson, TakesNullAsMissing) {
  const Json json = processor("CLIPImageProcessor", R"({"size": null, "crop_size": null, "image_mean": null,
    "image_std": null, "do_pad": null, "resample": null, "rescale_factor": null, "do_resize": null})");
  EXPECT_EQ(image_policy_from_json(json), image_policy_from_json(processor("CLIPImageProcessor")));
}

TEST(ImagePolicyFromJson, RefusesWhatItCannotCompute) {
  EXPECT_THAT(error_of(processor("IdeficsImageProcessor")),
              HasSubstr("\"IdeficsImageProcessor\" is not supported"));
  EXPECT_THAT(error_of(processor("Qwen2VLImageProcessor")), HasSubstr("not supported"));
  EXPECT_THAT(error_of(processor("")), HasSubstr("no \"image_processor_type\""));
  EXPECT_THAT(error_of(Json::array()), HasSubstr("expected a JSON object"));
  EXPECT_THAT(error_of(processor("CLIPImageProcessor", R"({"size": {"longest_edge": 5}})")),
              HasSubstr("\"size\""));
}

TEST(ImagePolicyFromJson, RefusesBadValuesByName) {
  const auto bad = [](const char* rest) { return error_of(processor("CLIPImageProcessor", rest)); };
  EXPECT_THAT(bad(R"({"size": 0})"), HasSubstr("\"size\" is 0; a side may be 1 to 8192"));
  EXPECT_THAT(bad(R"({"size": -5})"), HasSubstr("\"size\""));
  EXPECT_THAT(bad(R"({"size": 18446744073709551615})"), HasSubstr("\"size\""));
  EXPECT_THAT(bad(R"({"size": 3.5})"), HasSubstr("must hold integers"));
  EXPECT_THAT(bad(R"({"size": "336"})"), HasSubstr("\"size\""));
  EXPECT_THAT(bad(R"({"crop_size": {"shortest_edge": 5}})"), HasSubstr("\"crop_size\""));
  EXPECT_THAT(bad(R"({"crop_size": {"height": 5, "width": 9000}})"), HasSubstr("\"crop_size\""));
  EXPECT_THAT(bad(R"({"resample": 6})"), HasSubstr("\"resample\""));
  EXPECT_THAT(bad(R"({"resample": "bicubic"})"), HasSubstr("\"resample\""));
  EXPECT_THAT(bad(R"({"image_mean": [0.5, 0.5]})"), HasSubstr("\"image_mean\" must hold 3 numbers"));
  EXPECT_THAT(bad(R"({"image_mean": ["a", 0, 0]})"), HasSubstr("\"image_mean\""));
  EXPECT_THAT(bad(R"({"image_std": [1, 0, 1]})"), HasSubstr("\"image_std\" holds a zero"));
  EXPECT_THAT(bad(R"({"do_resize": 1})"), HasSubstr("\"do_resize\""));
  EXPECT_THAT(bad(R"({"rescale_factor": "x"})"), HasSubstr("\"rescale_factor\""));
}

}  // namespace
}  // namespace llava
