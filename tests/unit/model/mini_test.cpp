// LLaVA-Mini against tools/reference/mini_reference.py (tests/golden/mini): every step from pixels to greedy ids.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "model/prefusion.h"
#include "model_golden.h"
#include "support/golden.h"
#include "vision/image.h"
#include "vision/media_plan.h"
#include "vision/resample.h"

namespace llava::test {
namespace {

struct MiniCase {
  const char *folder, *key;
  std::int64_t frames, views;
};

struct Mini {
  explicit Mini(const std::filesystem::path& folder)
      : golden(folder / "reference.safetensors"), checkpoint(read_checkpoint(folder)), model(load_model(checkpoint, {})) {}
  Golden golden;
  CheckpointInfo checkpoint;
  std::unique_ptr<LlavaModel> model;

  /// The golden's ids with as many places for media as its frames have tokens.
  at::Tensor ids(const std::string& key, std::int64_t frames) const {
    const at::Tensor short_ids = golden.at(key + "/input_ids").flatten();
    const auto place = short_ids.eq(-200).nonzero().item<std::int64_t>();
    const std::int64_t n = frames * checkpoint.model.compressor->num_tokens();
    return at::cat({short_ids.narrow(0, 0, place), at::full({n}, -200, at::kLong), short_ids.slice(0, place + 1)});
  }
};

class MiniModel : public testing::TestWithParam<MiniCase> {};

TEST_P(MiniModel, EqualsThePlainReference) {
  const auto [folder_name, key_name, frames, views] = GetParam();
  LLAVA_GOLDEN_OR_SKIP(folder, std::string("mini/") + folder_name);
  const Mini mini(folder);
  const std::string key = key_name;
  ASSERT_EQ(mini.checkpoint.model.compressor->num_views(), views);
  const at::Tensor pixels = mini.golden.at(key + "/pixel_values");
  ASSERT_EQ(pixels.size(0), frames * views);
  const MultimodalBatch batch = batch_of(mini.ids(key, frames), pixels, -200);
  ForwardTrace trace;
  const at::Tensor logits = full_logits(*mini.model, batch, &trace);
  EXPECT_LE(max_abs_diff(trace.vision_hidden, mini.golden.at(key + "/vision_hidden")), 5e-5);
  EXPECT_LE(max_abs_diff(trace.inputs_embeds, mini.golden.at(key + "/inputs_embeds")), 5e-5);
  EXPECT_LE(max_abs_diff(logits, mini.golden.at(key + "/logits")), 2e-4);
  const Greedy generated = greedy(*mini.model, batch, mini.golden.at(key + "/greedy").numel());
  expect_greedy_equal(generated.ids, mini.golden.at(key + "/greedy"), mini.golden.at(key + "/greedy_margin"), key);
}

TEST_P(MiniModel, FramesInPiecesAreFramesTogether) {
  const auto [folder_name, key_name, frames, views] = GetParam();
  LLAVA_GOLDEN_OR_SKIP(folder, std::string("mini/") + folder_name);
  const Mini mini(folder);
  const std::string key = key_name;
  const at::NoGradGuard no_grad;
  at::Tensor ids = mini.ids(key, frames);
  const at::Tensor places = ids.eq(-200).nonzero().squeeze(1);
  ids = ids.clamp_min(0);
  const auto fusion = mini.model->begin_fusion(ids, places, {});
  const at::Tensor features = mini.model->encode_vision(mini.golden.at(key + "/pixel_values"));
  for (const at::Tensor& frame : features.split(views)) fusion->add(frame);
  EXPECT_LE(max_abs_diff(fusion->finish(), mini.golden.at(key + "/inputs_embeds")), 5e-5);
}

INSTANTIATE_TEST_SUITE_P(Cases, MiniModel,
                         testing::Values(MiniCase{"mini", "image", 1, 1}, MiniCase{"mini", "video", 3, 1},
                                         MiniCase{"mini_one", "image", 1, 1}, MiniCase{"mini_hd", "hd", 1, 5}),
                         [](const auto& test) { return std::string(test.param.folder) + "_" + test.param.key; });

TEST(MiniModel, RowsOfABatchAreSingles) {
  LLAVA_GOLDEN_OR_SKIP(folder, "mini/mini");
  const Mini mini(folder);
  const at::Tensor image = mini.ids("image", 1), video = mini.ids("video", 3);
  const at::Tensor pixels = at::cat({mini.golden.at("image/pixel_values"), mini.golden.at("video/pixel_values")});
  const at::Tensor logits = full_logits(*mini.model, batch_of_rows({image, video}, pixels, -200));
  EXPECT_LE(max_abs_diff(logits[0].narrow(0, 0, image.numel()), mini.golden.at("image/logits")), 2e-4);
  EXPECT_LE(max_abs_diff(logits[1].narrow(0, 0, video.numel()), mini.golden.at("video/logits")), 2e-4);
}

TEST(MiniModel, TrainedTokensTakeNoPartInThePrefusion) {
  LLAVA_GOLDEN_OR_SKIP(folder, "mini/mini");
  const Mini mini(folder);
  MultimodalBatch batch = batch_of(mini.ids("image", 1), mini.golden.at("image/pixel_values"), -200);
  batch.labels = at::full_like(batch.ids, -100);
  const std::int64_t last = batch.ids.size(1) - 1;
  batch.labels[0][last] = batch.ids[0][last];
  const at::NoGradGuard no_grad;
  const at::Tensor masked = mini.model->embed(batch)[0];
  const at::Tensor fused = mini.golden.at("image/inputs_embeds")[0];
  EXPECT_LE(max_abs_diff(masked.narrow(0, 0, last), fused.narrow(0, 0, last)), 5e-5);  // nothing before sees it
  EXPECT_GT(max_abs_diff(masked[last], fused[last]), 1e-2);
  EXPECT_EQ(max_abs_diff(masked[last], mini.model->embed({.ids = batch.ids.slice(1, last)})[0][0]), 0);
}

TEST(MiniModel, LearnsThroughCompressorAndPrefusion) {
  LLAVA_GOLDEN_OR_SKIP(folder, "mini/mini_hd");
  const Mini mini(folder);
  MultimodalBatch batch = batch_of(mini.ids("hd", 1), mini.golden.at("hd/pixel_values"), -200);
  batch.labels = at::full_like(batch.ids, -100);
  batch.labels.slice(1, batch.ids.size(1) - 2).copy_(batch.ids.slice(1, batch.ids.size(1) - 2));
  std::vector<NamedParameter> wanted;
  for (auto& p : mini.model->parameters())
    if (p.name == "compressor.query" || p.name == "prefusion_layers.0.self_attn.q_proj.weight" ||
        p.name == "mm_projector.0.weight")
      wanted.push_back(p), p.tensor.requires_grad_(true);
  ASSERT_EQ(wanted.size(), 3U);
  mini.model->loss(batch).sum.backward();
  for (const auto& p : wanted) {
    ASSERT_TRUE(p.tensor.grad().defined()) << p.name;
    EXPECT_GT(p.tensor.grad().abs().sum().item<float>(), 0) << p.name;
  }
}

TEST(MiniPixels, AreThoseOfTheReference) {
  for (const auto& [folder_name, key] : {std::pair{"mini", "image"}, {"mini_one", "image"}, {"mini_hd", "hd"}}) {
    LLAVA_GOLDEN_OR_SKIP(folder, std::string("mini/") + folder_name);
    LLAVA_GOLDEN_OR_SKIP(all, "mini");
    const Json cases = read_json_file(all / "cases.json");
    LLAVA_GOLDEN_OR_SKIP(picture, "images/" + cases.at(folder_name).at(key).at("picture").get<std::string>());
    const CheckpointInfo checkpoint = read_checkpoint(folder);
    const Image image = load_image(picture);
    const MediaPlan plan = plan_media({image.width, image.height}, *checkpoint.image_policy, checkpoint.model);
    EXPECT_EQ(plan.token_count, checkpoint.model.compressor->num_tokens());
    std::vector<float> values = render_pixels(image, plan, *checkpoint.image_policy);
    const at::Tensor expected = Golden(folder / "reference.safetensors").at(std::string(key) + "/pixel_values");
    EXPECT_LE(max_abs_diff(at::from_blob(values.data(), expected.sizes(), at::kFloat), expected), 1e-6) << folder_name;
  }
}

TEST(MiniPixels, FramesAreSquashedToTheNearestPixel) {
  LLAVA_GOLDEN_OR_SKIP(folder, "mini/mini");
  const CheckpointInfo checkpoint = read_checkpoint(folder);
  const Golden golden(folder / "reference.safetensors");
  const at::Tensor frames = golden.at("video/frames").contiguous();  // [3,16,24,3] uint8
  const at::Tensor expected = golden.at("video/pixel_values");
  for (std::int64_t i = 0; i < frames.size(0); ++i) {
    const auto* bytes = frames[i].const_data_ptr<std::uint8_t>();
    const Image frame{frames.size(2), frames.size(1), {bytes, bytes + frames[i].numel()}};
    const Image square = squash_nearest(frame, {expected.size(3), expected.size(2)});
    const MediaPlan plan = plan_media({square.width, square.height}, *checkpoint.image_policy, checkpoint.model);
    std::vector<float> values = render_pixels(square, plan, *checkpoint.image_policy);
    EXPECT_LE(max_abs_diff(at::from_blob(values.data(), expected[i].sizes(), at::kFloat), expected[i]), 1e-6);
  }
}

}  // namespace
}  // namespace llava::test
