#include "checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "checkpoint_fixture.h"
#include "support/golden.h"

namespace llava {
namespace {

using test::expect_error;

CheckpointInfo read_golden(const std::string& name) {
  const auto path = test::find_golden("checkpoints/" + name);
  if (!path) return {};
  return read_checkpoint(*path);
}

TEST(ReadCheckpoint, HfLlavaHasEveryField) {
  LLAVA_GOLDEN_OR_SKIP(path, "checkpoints/llava15");
  const CheckpointInfo info = read_checkpoint(path);
  EXPECT_EQ(info.layout, Layout::kHfLlava);
  EXPECT_EQ(info.recipe, "llava-1.5");
  ASSERT_TRUE(info.model.tower);
  const TowerConfig& tower = *info.model.tower;
  EXPECT_EQ(tower.kind, TowerKind::kClip);
  EXPECT_EQ(tower.hidden_size, 48);
  EXPECT_EQ(tower.intermediate_size, 96);
  EXPECT_EQ(tower.num_hidden_layers, 3);
  EXPECT_EQ(tower.image_size, 112);
  EXPECT_EQ(tower.input_size, 112);
  EXPECT_EQ(tower.hidden_act, Activation::kQuickGelu);
  EXPECT_EQ(tower.select_layers, std::vector<std::int64_t>{-2});
  EXPECT_EQ(tower.select_feature, SelectFeature::kPatch);
  EXPECT_EQ(info.model.num_image_tokens(), 64);
  EXPECT_EQ(info.model.connector.kind, ConnectorKind::kMlp);
  EXPECT_EQ(info.model.connector.in_size, 48);
  EXPECT_EQ(info.model.decoder.vocab_size, 2112);
  EXPECT_EQ(info.model.decoder.num_key_value_heads, 2);
  EXPECT_DOUBLE_EQ(info.model.decoder.rms_norm_eps, 1e-5);
  EXPECT_EQ(info.model.image_token_id, 2048);
  EXPECT_EQ(info.model.pad_token_id, 2049);
  EXPECT_EQ(info.model.torch_dtype, "bfloat16");
  EXPECT_EQ(info.tokenisation, ImageTokenisation::kWholeString);
  EXPECT_EQ(info.stop_ids, std::vector<std::int64_t>{2});
  ASSERT_TRUE(info.image_policy);
  EXPECT_EQ(info.image_policy->crop_height, 112);
  EXPECT_EQ(info.image_policy->aspect_ratio, AspectRatio::kSquare);
  EXPECT_TRUE(info.tokenizer);
  ASSERT_TRUE(info.chat_format);
  ASSERT_EQ(info.weights.size(), 1u);
  EXPECT_EQ(info.weights[0].part, WeightSource::Part::kAll);
  EXPECT_TRUE(info.weights[0].file);
}

TEST(ReadCheckpoint, SiglipLlavaKeepsAllPatchesOfTheLastLayer) {
  LLAVA_GOLDEN_OR_SKIP(path, "checkpoints/llava_siglip");
  const CheckpointInfo info = read_checkpoint(path);
  EXPECT_EQ(info.model.tower->kind, TowerKind::kSiglip);
  EXPECT_EQ(info.model.tower->select_layers, std::vector<std::int64_t>{-1});
  EXPECT_EQ(info.model.tower->hidden_act, Activation::kGeluTanh);
  EXPECT_DOUBLE_EQ(info.model.tower->layer_norm_eps, 1e-6);
  EXPECT_EQ(info.model.num_image_tokens(), 64);
  EXPECT_EQ(info.image_policy->resize, ResizeMode::kSquash);
}

TEST(ReadCheckpoint, OriginalLlavaFindsItsTowerAndFormat) {
  LLAVA_GOLDEN_OR_SKIP(path, "checkpoints/llava15_orig");
  const CheckpointInfo info = read_checkpoint(path);
  EXPECT_EQ(info.layout, Layout::kOriginalLlava);
  EXPECT_EQ(info.model.image_token_id, -200);
  EXPECT_EQ(info.tokenisation, ImageTokenisation::kChunks);
  EXPECT_EQ(info.image_policy->aspect_ratio, AspectRatio::kPad);
  EXPECT_EQ(info.model.tower->image_size, 112);
  EXPECT_EQ(info.model.decoder.vocab_size, 2048);
  EXPECT_EQ(info.model.torch_dtype, "float16");
  ASSERT_TRUE(info.chat_format);
  EXPECT_EQ(info.chat_format->name(), "vicuna_v1");
  ASSERT_EQ(info.weights.size(), 3u);  // tower, two shards; mm_projector.bin is a copy
  EXPECT_EQ(info.weights[0].part, WeightSource::Part::kVisionTower);
  EXPECT_EQ(info.stop_ids, std::vector<std::int64_t>{2});
}

TEST(ReadCheckpoint, TextModelsOfEveryKind) {
  LLAVA_GOLDEN_OR_SKIP(path, "checkpoints/llama");
  for (const char* name : {"llama", "llama3", "mistral"}) {
    const CheckpointInfo info = read_golden(name);
    EXPECT_EQ(info.layout, Layout::kHfText) << name;
    EXPECT_FALSE(info.model.tower) << name;
    EXPECT_TRUE(info.tokenizer) << name;
  }
  const CheckpointInfo llama3 = read_golden("llama3");
  EXPECT_TRUE(llama3.model.decoder.tie_word_embeddings);
  EXPECT_EQ(llama3.model.decoder.rope_scaling.type, RopeType::kLlama3);
  EXPECT_DOUBLE_EQ(llama3.model.decoder.rope_scaling.factor, 8.0);
  EXPECT_EQ(llama3.model.decoder.rope_scaling.original_max_position_embeddings, 64);
  EXPECT_EQ(llama3.stop_ids, std::vector<std::int64_t>{2057});
  EXPECT_EQ(read_golden("mistral").model.decoder.sliding_window, 16);
  EXPECT_EQ(read_golden("mistral").model.decoder.head_dim, 16);
  EXPECT_EQ(read_golden("llama").recipe, "llama");
}

TEST(ReadCheckpoint, EveryRopeScaling) {
  LLAVA_GOLDEN_OR_SKIP(path, "checkpoints/llama_rope_yarn");
  EXPECT_EQ(read_golden("llama_rope_linear").model.decoder.rope_scaling.type, RopeType::kLinear);
  EXPECT_EQ(read_golden("llama_rope_dynamic").model.decoder.rope_scaling.type, RopeType::kDynamic);
  const CheckpointInfo yarn = read_checkpoint(path);
  EXPECT_EQ(yarn.model.decoder.rope_scaling.type, RopeType::kYarn);
  EXPECT_EQ(yarn.model.decoder.rope_scaling.original_max_position_embeddings, 32);
  EXPECT_FALSE(yarn.tokenizer);
  EXPECT_FALSE(yarn.chat_format);
}

TEST(ReadCheckpoint, VisionTowersAlone) {
  LLAVA_GOLDEN_OR_SKIP(path, "checkpoints/clip_vision");
  const CheckpointInfo clip = read_checkpoint(path);
  EXPECT_EQ(clip.layout, Layout::kHfVision);
  EXPECT_EQ(clip.model.tower->kind, TowerKind::kClip);
  EXPECT_EQ(clip.recipe, "clip");
  EXPECT_EQ(read_golden("siglip_vision").model.tower->kind, TowerKind::kSiglip);
}

TEST(ReadCheckpoint, PinpointsComeOutAsWidthAndHeightInTheFilesOrder) {
  LLAVA_GOLDEN_OR_SKIP(path, "checkpoints/llava_next_mistral");
  const CheckpointInfo hf = read_checkpoint(path), original = read_golden("llava_next_orig");
  for (const CheckpointInfo* info : {&hf, &original}) {
    EXPECT_EQ(info->image_policy->aspect_ratio, AspectRatio::kAnyRes);
    EXPECT_EQ(info->model.media.merge, TileMerge::kSpatialUnpad);
    EXPECT_TRUE(info->model.media.image_newline);
    EXPECT_EQ(info->recipe, "llava-next");
  }
  EXPECT_EQ(hf.image_policy->grid_pinpoints.front(), (GridPinpoint{112, 56}));
  EXPECT_EQ(original.image_policy->grid_pinpoints.front(), (GridPinpoint{112, 56}));
  EXPECT_EQ(hf.image_policy->grid_pinpoints[3], (GridPinpoint{56, 168}));
  EXPECT_EQ(original.image_policy->grid_pinpoints[3], (GridPinpoint{56, 168}));
}

TEST(ReadCheckpoint, OneVisionAndNextVideoPoolTheirFrames) {
  LLAVA_GOLDEN_OR_SKIP(path, "checkpoints/llava_onevision");
  const MediaConfig onevision = read_checkpoint(path).model.media;
  EXPECT_EQ(onevision.max_tiles, 9);
  EXPECT_TRUE(onevision.tile_single_images_only);
  EXPECT_EQ(onevision.video_pool, PoolMode::kBilinear);
  EXPECT_FALSE(onevision.video_pool_first);
  EXPECT_EQ(onevision.video_newline, Newline::kEnd);
  EXPECT_EQ(onevision.video_token_id, 2054);
  const MediaConfig video = read_golden("llava_next_video").model.media;
  EXPECT_EQ(video.video_pool, PoolMode::kAverage);
  EXPECT_TRUE(video.video_pool_first);
  EXPECT_EQ(video.video_newline, Newline::kNone);
}

TEST(ReadCheckpoint, PeftFolderTakesItsBase) {
  LLAVA_GOLDEN_OR_SKIP(adapter, "train/lora_adapter");
  LLAVA_GOLDEN_OR_SKIP(base, "checkpoints/llava15");
  const CheckpointInfo info = read_checkpoint(adapter, base);
  EXPECT_EQ(info.layout, Layout::kHfLlava);
  ASSERT_EQ(info.adapters.size(), 1u);
  EXPECT_EQ(info.adapters[0].r, 8);
  EXPECT_DOUBLE_EQ(info.adapters[0].lora_alpha, 16);
  EXPECT_EQ(info.adapters[0].files.size(), 1u);
  EXPECT_EQ(info.weights.size(), 1u);
  expect_error(ErrorKind::kInput, "base model", [&] { read_checkpoint(adapter); });
}

TEST(ReadCheckpoint, DropsAHeadThatIsNotStored) {
  const auto folder = test::write_model("tied", test::text_config(), {"model.embed_tokens.weight"});
  EXPECT_TRUE(read_checkpoint(folder).model.decoder.tie_word_embeddings);
  const auto untied =
      test::write_model("untied", test::text_config(), {"model.embed_tokens.weight", "lm_head.weight"});
  EXPECT_FALSE(read_checkpoint(untied).model.decoder.tie_word_embeddings);
}

TEST(ReadCheckpoint, TakesTheVocabularyFromTheTensor) {
  Json config = test::text_config();
  config["vocab_size"] = 999;
  const auto folder = test::write_model("vocabulary", config, {"model.embed_tokens.weight"});
  EXPECT_EQ(read_checkpoint(folder).model.decoder.vocab_size, 4);
}

TEST(ReadCheckpoint, StopIdsPreferGenerationConfig) {
  Json config = test::text_config();
  config["eos_token_id"] = 7;
  const auto folder = test::write_model("stops", config, {"model.embed_tokens.weight"});
  EXPECT_EQ(read_checkpoint(folder).stop_ids, std::vector<std::int64_t>{7});
  test::write_text(folder / "generation_config.json", R"({"eos_token_id": [3, 5]})");
  EXPECT_EQ(read_checkpoint(folder).stop_ids, (std::vector<std::int64_t>{3, 5}));
}

TEST(ReadCheckpoint, LlavaClassDefaultsFillMissingKeys) {
  const auto folder = test::write_model(
      "defaults",
      Json{{"model_type", "llava"}, {"text_config", {{"model_type", "llama"}}}, {"vision_config", nullptr}},
      {});
  const CheckpointInfo info = read_checkpoint(folder);
  EXPECT_EQ(info.model.decoder.hidden_size, 4096);
  EXPECT_EQ(info.model.decoder.num_hidden_layers, 32);
  EXPECT_DOUBLE_EQ(info.model.decoder.rms_norm_eps, 1e-6);
  EXPECT_EQ(info.model.tower->hidden_size, 1024);
  EXPECT_EQ(info.model.tower->image_size, 336);
  EXPECT_DOUBLE_EQ(info.model.tower->layer_norm_eps, 1e-5);
  EXPECT_EQ(info.model.tower->hidden_act, Activation::kQuickGelu);
  EXPECT_EQ(info.model.image_token_id, 32000);
  EXPECT_EQ(info.model.num_image_tokens(), 576);
}

TEST(ReadCheckpoint, Qwen2SlidesOnlyWhenAskedTo) {
  Json config = test::text_config();
  config["model_type"] = "qwen2";
  config["sliding_window"] = 8;
  config["max_window_layers"] = 1;
  EXPECT_EQ(read_checkpoint(test::write_model("qwen", config, {})).model.decoder.sliding_window, 0);
  config["use_sliding_window"] = true;
  const CheckpointInfo info = read_checkpoint(test::write_model("qwen", config, {}));
  EXPECT_EQ(info.model.decoder.sliding_window, 8);
  EXPECT_EQ(info.model.decoder.first_sliding_layer, 1);
  EXPECT_TRUE(info.model.decoder.attention_bias);
}

struct Unsupported {
  const char* name;
  Json change;
  const char* message;
};

class UnsupportedText : public testing::TestWithParam<Unsupported> {};

INSTANTIATE_TEST_SUITE_P(
    Keys, UnsupportedText,
    testing::Values(
        Unsupported{"act", {{"hidden_act", "mish"}}, "mish"},
        Unsupported{"rope", {{"rope_scaling", {{"type", "longrope"}, {"factor", 2.0}}}}, "longrope"},
        Unsupported{"type", {{"model_type", "qwen3"}}, "qwen3"},
        Unsupported{"quantised", {{"quantization_config", {{"bits", 4}}}}, "quantization_config"},
        Unsupported{"experts", {{"num_local_experts", 8}}, "num_local_experts"},
        Unsupported{"rotary", {{"partial_rotary_factor", 0.5}}, "partial_rotary_factor"},
        Unsupported{"dtype", {{"dtype", "float8_e4m3fn"}}, "float8_e4m3fn"}),
    [](const auto& entry) { return entry.param.name; });

TEST_P(UnsupportedText, IsNamed) {
  Json config = test::text_config();
  config.update(GetParam().change);
  const auto folder = test::write_model("unsupported", config, {});
  expect_error(ErrorKind::kUnsupported, GetParam().message, [&] { read_checkpoint(folder); });
}

class HostileText : public testing::TestWithParam<Unsupported> {};

INSTANTIATE_TEST_SUITE_P(
    Values, HostileText,
    testing::Values(Unsupported{"negative", {{"hidden_size", -64}}, "hidden_size"},
                    Unsupported{"huge", {{"num_hidden_layers", 1000000000}}, "num_hidden_layers"},
                    Unsupported{"no_heads", {{"num_attention_heads", 0}}, "num_attention_heads"},
                    Unsupported{"text", {{"hidden_size", "64"}}, "hidden_size"},
                    Unsupported{"fraction", {{"hidden_size", 64.5}}, "hidden_size"},
                    Unsupported{"groups", {{"num_key_value_heads", 3}}, "num_key_value_heads"},
                    Unsupported{"rope", {{"rope_scaling", {{"type", "linear"}}}}, "factor"}),
    [](const auto& entry) { return entry.param.name; });

TEST_P(HostileText, IsRefusedWithTheKey) {
  Json config = test::text_config();
  config.update(GetParam().change);
  const auto folder = test::write_model("hostile", config, {});
  expect_error(ErrorKind::kFormat, GetParam().message, [&] { read_checkpoint(folder); });
}

TEST(ReadCheckpoint, NamesWhatIsMissing) {
  const auto folder = test::scratch_dir("empty");
  expect_error(ErrorKind::kInput, "no config.json", [&] { read_checkpoint(folder); });
  expect_error(ErrorKind::kInput, "no such file", [&] { read_checkpoint(folder / "nothing"); });
  test::write_text(folder / "config.json", "{");
  expect_error(ErrorKind::kFormat, "config.json", [&] { read_checkpoint(folder); });
  test::write_text(folder / "config.json", R"({"hidden_size": 64})");
  expect_error(ErrorKind::kFormat, "model_type", [&] { read_checkpoint(folder); });
}

TEST(ReadCheckpoint, NamesAMissingShard) {
  const auto folder = test::write_model("shards", test::text_config(), {});
  test::write_text(folder / "model.safetensors.index.json",
                   R"({"weight_map": {"model.norm.weight": "gone.safetensors"}})");
  std::filesystem::remove(folder / "model.safetensors");
  expect_error(ErrorKind::kInput, "gone.safetensors", [&] { read_checkpoint(folder); });
}

TEST(FindModel, ListsWhereItLooked) {
  expect_error(ErrorKind::kInput, "no-such-model-here", [] { find_model("no-such-model-here"); });
}

TEST(FindModel, FindsInstalledModels) {
  const auto folder = test::scratch_dir("installed");
  std::filesystem::create_directories(folder / "mine");
  ::setenv("LLAVA_MODELS", folder.c_str(), 1);
  EXPECT_EQ(find_model("mine"), folder / "mine");
  ::unsetenv("LLAVA_MODELS");
  EXPECT_EQ(find_model(folder.string()), folder);
}

}  // namespace
}  // namespace llava
