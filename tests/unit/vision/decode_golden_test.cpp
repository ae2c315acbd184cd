#include <gmock/gmock.h>

#include <set>

#include "base/files.h"
#include "base/json.h"
#include "sha256.h"
#include "vision/image.h"
#include "vision_golden.h"

// Every image kind against Pillow.
namespace llava {
namespace {

namespace fs = std::filesystem;

/// libjpeg versions differ in CMYK by up to 3; all else is exact.
int allowed(const std::string& name) {
  return name.starts_with("cmyk") || name.starts_with("ycck") ? 3 : 0;
}

TEST(Sha256, EqualsTheStandardsExample) {
  const std::string text = "abc";
  const std::vector<std::uint8_t> bytes(text.begin(), text.end());
  EXPECT_EQ(test::sha256(bytes), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(DecodeImage, EqualsPillowOnTheProjectsImages) {
  LLAVA_GOLDEN_OR_SKIP(folder, "images");
  const Json info = read_json_file(folder / "images.json");
  ASSERT_GE(info.size(), 20u);
  for (const auto& [name, entry] : info.items()) {
    const std::string bytes = read_file(folder / name);
    const Image image = decode_image(bytes);
    EXPECT_EQ(image.width, entry.at("width").get<std::int64_t>()) << name;
    EXPECT_EQ(image.height, entry.at("height").get<std::int64_t>()) << name;
    EXPECT_EQ(probe_image(bytes), (ImageSize{image.width, image.height})) << name;
    if (allowed(name) == 0) {
      EXPECT_EQ(test::sha256(image.rgb), entry.at("sha256").get<std::string>()) << name;
    }
    if (entry.contains("decoded")) {
      const Image expected = load_image(folder / entry.at("decoded").get<std::string>());
      EXPECT_LE(test::max_difference(image, expected), allowed(name)) << name;
    }
    if (entry.contains("decoded_exif")) {
      const Image expected = load_image(folder / entry.at("decoded_exif").get<std::string>());
      EXPECT_EQ(test::max_difference(decode_image(bytes, true), expected), 0) << name;
      EXPECT_EQ(probe_image(bytes, {}, true), (ImageSize{expected.width, expected.height})) << name;
    }
  }
}

TEST(DecodeImage, EqualsPillowOnEveryKindOfFile) {
  LLAVA_GOLDEN_OR_SKIP(folder, "vision/files");
  LLAVA_GOLDEN_OR_SKIP(path, "vision/decoded.safetensors");
  const auto golden = open_safetensors(path);
  int files = 0, turned = 0;
  for (const TensorView& view : golden->tensors()) {
    const bool upright = view.name.ends_with("/upright");
    const std::string name = upright ? view.name.substr(0, view.name.size() - 8) : view.name;
    const std::string bytes = read_file(folder / name);
    const Image expected = test::image_of(*golden, view.name);
    try {
      EXPECT_LE(test::max_difference(decode_image(bytes, upright), expected), allowed(name)) << view.name;
      EXPECT_EQ(probe_image(bytes, {}, upright), (ImageSize{expected.width, expected.height})) << view.name;
      if (!upright && golden->find(name + "/upright") == nullptr) {
        EXPECT_LE(test::max_difference(decode_image(bytes, true), expected), allowed(name)) << view.name;
      }
    } catch (const Error& e) {
      ADD_FAILURE() << view.name << ": " << e.what();
    }
    upright ? ++turned : ++files;
  }
  EXPECT_EQ(files, 114);
  EXPECT_EQ(turned, 9);
}

TEST(DecodeImage, RefusesWhatPillowRefuses) {
  LLAVA_GOLDEN_OR_SKIP(folder, "vision/files");
  LLAVA_GOLDEN_OR_SKIP(path, "vision/refused.json");
  for (const Json& name : read_json_file(path))
    EXPECT_THROW(load_image(folder / name.get<std::string>()), Error) << name;
}

TEST(LoadImage, NamesTheFileInItsErrors) {
  const fs::path folder = test::scratch_dir("load_image");
  write_file_atomic(folder / "broken.png", "\x89PNG\r\n\x1A\n and no more");
  const auto error_of = [](const fs::path& path) -> std::string {
    try {
      load_image(path);
    } catch (const Error& e) {
      return e.what();
    }
    return "(accepted)";
  };
  EXPECT_THAT(error_of(folder / "broken.png"), testing::HasSubstr("broken.png: PNG: "));
  EXPECT_THAT(error_of(folder / "absent.png"), testing::HasSubstr("absent.png"));
}

}  // namespace
}  // namespace llava
