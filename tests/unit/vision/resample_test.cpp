#include "vision/resample.h"

#include <gmock/gmock.h>

#include <array>
#include <string>

#include "base/rng.h"
#include "vision_golden.h"

namespace llava {
namespace {

Image random_image(std::int64_t width, std::int64_t height, std::uint64_t seed) {
  Rng rng(seed);
  Image image{width, height, std::vector<std::uint8_t>(static_cast<std::size_t>(width * height * 3))};
  for (std::uint8_t& byte : image.rgb) byte = static_cast<std::uint8_t>(rng.below(256));
  return image;
}

TEST(ResizeImage, EqualsPillowForEveryFilter) {
  LLAVA_GOLDEN_OR_SKIP(path, "vision/resize.safetensors");
  const auto golden = open_safetensors(path);
  const std::array<std::string, 6> filters = {"nearest", "lanczos", "bilinear",
                                              "bicubic", "box",     "hamming"};
  int compared = 0;
  for (const TensorView& view : golden->tensors()) {
    const std::string filter = view.name.substr(0, view.name.find('/'));
    if (filter == "source") continue;
    const std::string name = view.name.substr(filter.size() + 1, view.name.rfind('/') - filter.size() - 1);
    const Image expected = test::image_of(*golden, view.name);
    const auto code =
        static_cast<ResampleFilter>(std::find(filters.begin(), filters.end(), filter) - filters.begin());
    const Image source = test::image_of(*golden, "source/" + name);
    EXPECT_EQ(test::max_difference(resize_image(source, expected.width, expected.height, code), expected),
              0)
        << view.name;
    ++compared;
  }
  EXPECT_EQ(compared, 72);
}

TEST(ResizeImage, LeavesAnImageOfTheSameSizeAlone) {
  const Image image = random_image(9, 7, 1);
  EXPECT_EQ(resize_image(image, 9, 7, ResampleFilter::kLanczos).rgb, image.rgb);
}

TEST(ResizeImage, RefusesEmptySizesAndAbsurdTargets) {
  const Image image = random_image(4, 4, 1);
  EXPECT_THROW(resize_image(Image{}, 4, 4, ResampleFilter::kBicubic), Error);
  EXPECT_THROW(resize_image(image, 0, 4, ResampleFilter::kBicubic), Error);
  EXPECT_THROW(resize_image(image, 4, -1, ResampleFilter::kBicubic), Error);
  EXPECT_THROW(resize_image(image, 100000, 100000, ResampleFilter::kBicubic), Error);
  EXPECT_THROW(resize_image(image, std::int64_t{1} << 40, 1, ResampleFilter::kBicubic), Error);
}

/// `image` in a frame, built for real.
Image framed(const Image& image, const ResampleJob& job) {
  Image out{job.x.framed(), job.y.framed(), {}};
  for (std::int64_t i = 0; i < out.width * out.height; ++i)
    out.rgb.insert(out.rgb.end(), job.frame_colour.begin(), job.frame_colour.end());
  for (std::int64_t y = 0; y < image.height; ++y)
    std::copy_n(image.rgb.begin() + y * image.width * 3, image.width * 3,
                out.rgb.begin() + ((y + job.y.before) * out.width + job.x.before) * 3);
  return out;
}

Image cropped(const Image& image, const ResampleJob& job) {
  Image out{job.x.length, job.y.length, {}};
  for (std::int64_t y = 0; y < out.height; ++y) {
    const auto row = image.rgb.begin() + ((y + job.y.begin) * image.width + job.x.begin) * 3;
    out.rgb.insert(out.rgb.end(), row, row + out.width * 3);
  }
  return out;
}

TEST(Resample, FrameAndWindowChangeNoPixel) {
  Rng rng(7);
  const auto axis = [&](std::int64_t source) {
    ResampleAxis a;
    a.source = source;
    a.before = static_cast<std::int64_t>(rng.below(40)) * static_cast<std::int64_t>(rng.below(2));
    a.after = static_cast<std::int64_t>(rng.below(40));
    a.target = rng.below(5) == 0 ? a.framed() : 1 + static_cast<std::int64_t>(rng.below(60));
    a.begin = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(a.target)));
    a.length = 1 + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(a.target - a.begin)));
    return a;
  };
  for (std::uint64_t i = 0; i < 300; ++i) {
    const Image image = random_image(1 + static_cast<std::int64_t>(rng.below(40)),
                                     1 + static_cast<std::int64_t>(rng.below(40)), i);
    ResampleJob job{.x = axis(image.width), .y = axis(image.height), .frame_colour = {122, 116, 7}};
    job.filter = static_cast<ResampleFilter>(rng.below(6));
    const Image whole = resize_image(framed(image, job), job.x.target, job.y.target, job.filter);
    ASSERT_EQ(test::max_difference(resample(image, job), cropped(whole, job)), 0) << "case " << i;
  }
}

TEST(WeighRows, EqualsTheFormulaAtEveryWidth) {
  Rng rng(3);
  for (std::size_t lanes = 0; lanes < 140; ++lanes) {
    const auto count = static_cast<std::int32_t>(rng.below(6));
    std::vector<std::uint8_t> rows(static_cast<std::size_t>(count) * (lanes + 5) + lanes), frame(lanes),
        out(lanes);
    for (std::uint8_t& byte : rows) byte = static_cast<std::uint8_t>(rng.below(256));
    for (std::uint8_t& byte : frame) byte = static_cast<std::uint8_t>(rng.below(256));
    std::vector<std::int32_t> weights(static_cast<std::size_t>(count));
    const auto weight = [&] { return static_cast<std::int32_t>(rng.below(1 << 21)) - (1 << 20); };
    for (std::int32_t& w : weights) w = weight();
    const std::int32_t frame_weight = rng.below(2) == 0 ? 0 : weight();
    weigh_rows(rows.data(), lanes + 5, weights.data(), count, frame.data(), frame_weight, out.data(),
               lanes);
    for (std::size_t i = 0; i < lanes; ++i) {
      std::int64_t sum = (std::int64_t{1} << 21) + std::int64_t{frame_weight} * frame[i];
      for (std::size_t k = 0; k < weights.size(); ++k)
        sum += std::int64_t{weights[k]} * rows[k * (lanes + 5) + i];
      ASSERT_EQ(int{out[i]}, std::clamp<std::int64_t>(sum >> 22, 0, 255)) << lanes << " lanes, lane " << i;
    }
  }
}

TEST(Resample, KeepsFlatColourFlatAtEveryScale) {
  for (const ResampleFilter filter :
       {ResampleFilter::kLanczos, ResampleFilter::kBicubic, ResampleFilter::kHamming}) {
    Image image{5000, 3, {}};
    image.rgb.assign(5000 * 3 * 3, 201);
    const Image out = resize_image(image, 3, 700, filter);
    EXPECT_THAT(out.rgb, testing::Each(201));
  }
}

}  // namespace
}  // namespace llava
