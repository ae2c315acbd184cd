#include <gtest/gtest.h>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint_fixture.h"
#include "support/golden.h"

// Layouts made on the fly: the original code's LoRA and projector folders, embedded towers, and our own.
namespace llava {
namespace {

namespace fs = std::filesystem;
using test::expect_error;

Json clip_config() {
  return {{"model_type", "clip_vision_model"},
          {"hidden_size", 4},
          {"intermediate_size", 8},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"image_size", 28},
          {"patch_size", 14}};
}

Json original_config() {
  Json config = test::text_config();
  config["model_type"] = "llava_llama";
  config["architectures"] = {"LlavaLlamaForCausalLM"};
  config["mm_vision_tower"] = "tower";
  config["mm_projector_type"] = "mlp2x_gelu";
  config["mm_hidden_size"] = 4;
  config["mm_vision_select_layer"] = -2;
  return config;
}

/// An original folder with its tower as a sub-folder.
fs::path write_original(const std::string& name, const Json& config) {
  const fs::path folder =
      test::write_model(name, config, {"model.embed_tokens.weight", "model.mm_projector.0.weight"});
  fs::create_directories(folder / "tower");
  test::write_text(folder / "tower" / "config.json", clip_config().dump());
  test::write_zeros(folder / "tower" / "model.safetensors", {"vision_model.post_layernorm.weight"});
  return folder;
}

TEST(OriginalLayout, ReadsTheMmKeys) {
  Json config = original_config();
  config["mm_vision_select_feature"] = "cls_patch";
  config["mm_vision_select_layer"] = -1;
  const CheckpointInfo info = read_checkpoint(write_original("orig", config));
  EXPECT_EQ(info.model.tower->select_feature, SelectFeature::kClsPatch);
  EXPECT_EQ(info.model.tower->select_layers, std::vector<std::int64_t>{-1});
  EXPECT_EQ(info.model.connector.kind, ConnectorKind::kMlp);
  EXPECT_EQ(info.model.num_image_tokens(), 5);
}

TEST(OriginalLayout, MissingProjectorTypeIsLinear) {
  Json config = original_config();
  config.erase("mm_projector_type");
  const CheckpointInfo info = read_checkpoint(write_original("linear", config));
  EXPECT_EQ(info.model.connector.kind, ConnectorKind::kLinear);
  EXPECT_EQ(info.recipe, "llava-v1");
}

TEST(OriginalLayout, ArchitectureCountsMoreThanModelType) {
  Json config = original_config();
  config["model_type"] = "llava";
  config["architectures"] = {"LlavaQwenForCausalLM"};
  const CheckpointInfo info = read_checkpoint(write_original("qwen", config));
  EXPECT_EQ(info.model.decoder.model_type, "qwen2");
  EXPECT_TRUE(info.model.decoder.attention_bias);
  EXPECT_EQ(info.chat_format->name(), "qwen_1_5");
}

TEST(OriginalLayout, TheFolderNameMeansNothing) {
  EXPECT_EQ(
      read_checkpoint(write_original("mpt-lora-siglip-v1.6-34b", original_config())).chat_format->name(),
      "vicuna_v1");
}

TEST(OriginalLayout, UnsupportedMathsIsNamed) {
  const std::pair<const char*, Json> changes[] = {{"s2", true},
                                                  {"mm_resampler_type", "spatial_pool"},
                                                  {"image_aspect_ratio", "anyres_max_x"},
                                                  {"image_aspect_ratio", "highres"},
                                                  {"faster_token_stride", 0},
                                                  {"mm_patch_merge_type", "unires"},
                                                  {"mm_projector_type", "mlp2x_res2x_gelu"},
                                                  {"mm_vision_select_feature", "slicefour_patch"}};
  for (const auto& [key, value] : changes) {
    Json config = original_config();
    config[key] = value;
    if (std::string_view(key) == "faster_token_stride") config["add_faster_video"] = true;
    const fs::path folder = write_original("unsupported", config);
    expect_error(ErrorKind::kUnsupported, key, [&] { read_checkpoint(folder); });
  }
}

TEST(OriginalLayout, PinpointsMayBeAListTextOrARange) {
  const auto pinpoints = [&](const Json& value) {
    Json config = original_config();
    config["image_aspect_ratio"] = "anyres_max_9";
    config["image_grid_pinpoints"] = value;
    return read_checkpoint(write_original("pinpoints", config)).image_policy->grid_pinpoints;
  };
  const std::vector<GridPinpoint> two = {{112, 56}, {56, 112}};
  EXPECT_EQ(pinpoints(Json::parse("[[112, 56], [56, 112]]")), two);
  EXPECT_EQ(pinpoints("[[112, 56], [56, 112]]"), two);
  const auto range = pinpoints("(1x1),...,(2x3)");
  const std::int64_t side = range.front().width;
  ASSERT_EQ(range.size(), 6U);
  EXPECT_EQ(range[1], (GridPinpoint{side, 2 * side}));
  EXPECT_EQ(range[3], (GridPinpoint{2 * side, side}));
  for (const Json& bad : {Json("(1x1"), Json("(0x1),(2x2)"), Json::array(), Json::parse("[[1]]"), Json("x"),
                          Json::parse("[[-3, 5]]"), Json("(1x1),...,(99999999999999999999x2)"),
                          Json("(3x3),...,(1x1)")})
    expect_error(ErrorKind::kFormat, "image_grid_pinpoints", [&] { pinpoints(bad); });
}

TEST(OriginalLayout, ADeltaNeedsItsBaseAndKeepsItApart) {
  Json config = original_config();
  config["mm_use_im_start_end"] = true;
  const fs::path folder = write_original("delta", config);
  const fs::path base = test::write_model("delta-base", test::text_config(), {"model.embed_tokens.weight"});
  expect_error(ErrorKind::kInput, "base model", [&] { read_checkpoint(folder, ReadOptions{{}, {}, true}); });
  const CheckpointInfo info = read_checkpoint(folder, ReadOptions{base, {}, true});
  ASSERT_EQ(info.delta_base.size(), 1U);
  EXPECT_EQ(info.delta_base[0].path, base / "model.safetensors");
  for (const WeightSource& source : info.weights) EXPECT_NE(source.path, base / "model.safetensors");
  EXPECT_TRUE(info.model.media.image_start_end);
  expect_error(ErrorKind::kUsage, "--delta", [&] { read_checkpoint(base, ReadOptions{base, {}, true}); });
}

TEST(OriginalLayout, SaysWhereItLookedForTheTower) {
  Json config = original_config();
  config["mm_vision_tower"] = "openai/clip-vit-large-patch14-336";
  const fs::path folder = write_original("no-tower", config);
  expect_error(ErrorKind::kInput, "clip-vit-large-patch14-336", [&] { read_checkpoint(folder); });
  ReadOptions options;
  options.vision_tower = folder / "tower";
  EXPECT_EQ(read_checkpoint(folder, options).model.tower->image_size, 28);
}

TEST(OriginalLayout, FindsATowerBesideTheFolder) {
  Json config = original_config();
  config["mm_vision_tower"] = "openai/my-clip";
  const fs::path folder = write_original("beside/model", config);
  fs::rename(folder / "tower", folder.parent_path() / "my-clip");
  EXPECT_EQ(read_checkpoint(folder).model.tower->image_size, 28);
}

TEST(OriginalLayout, ATowerInsideTheCheckpointWins) {
  const fs::path folder = write_original("embedded", original_config());
  test::write_zeros(folder / "model.safetensors",
                    {"model.embed_tokens.weight", "model.mm_projector.0.weight",
                     "model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight"});
  const CheckpointInfo info = read_checkpoint(folder);
  ASSERT_EQ(info.weights.size(), 1u);
  EXPECT_EQ(info.weights[0].part, WeightSource::Part::kAll);
}

/// Zeros of any shape, so that shapes can tell a config.
void write_shapes(const fs::path& path,
                  const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& shapes) {
  static const std::vector<std::byte> zeros(1 << 20);
  SafetensorsWriter writer;
  for (const auto& [name, shape] : shapes) {
    std::size_t bytes = 4;
    for (const std::int64_t n : shape) bytes *= static_cast<std::size_t>(n);
    writer.add(name, DType::kF32, shape, std::span(zeros).first(bytes));
  }
  writer.write(path);
}

/// The tensors that describe a tower of two blocks inside an original checkpoint.
std::vector<std::pair<std::string, std::vector<std::int64_t>>> tower_shapes(std::int64_t width, bool clip) {
  const std::string prefix = "model.vision_tower.vision_tower.vision_model.";
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> shapes = {
      {"model.embed_tokens.weight", {4, 4}},
      {prefix + "embeddings.patch_embedding.weight", {width, 3, 14, 14}},
      {prefix + "embeddings.position_embedding.weight", {clip ? 5 : 4, width}},
      {prefix + "encoder.layers.0.mlp.fc1.weight", {2 * width, width}},
      {prefix + "encoder.layers.1.mlp.fc1.weight", {2 * width, width}}};
  if (clip) shapes.push_back({prefix + "embeddings.class_embedding", {width}});
  return shapes;
}

TEST(OriginalLayout, ShapesDescribeATowerWhoseFolderIsNotHere) {
  Json config = original_config();
  config["mm_vision_tower"] = "openai/gone";
  config["mm_hidden_size"] = 128;
  const fs::path folder = write_original("shapes", config);
  write_shapes(folder / "model.safetensors", tower_shapes(128, true));
  const TowerConfig clip = *read_checkpoint(folder).model.tower;
  EXPECT_EQ(clip.kind, TowerKind::kClip);
  EXPECT_EQ(clip.hidden_size, 128);
  EXPECT_EQ(clip.intermediate_size, 256);
  EXPECT_EQ(clip.num_hidden_layers, 2);
  EXPECT_EQ(clip.num_attention_heads, 2);
  EXPECT_EQ(clip.image_size, 28);
  EXPECT_EQ(clip.hidden_act, Activation::kQuickGelu);
  write_shapes(folder / "model.safetensors", tower_shapes(128, false));
  const TowerConfig siglip = *read_checkpoint(folder).model.tower;
  EXPECT_EQ(siglip.kind, TowerKind::kSiglip);
  EXPECT_EQ(siglip.select_layers, std::vector<std::int64_t>{-1});  // the last block is gone already
  config["mm_hidden_size"] = 12;
  test::write_text(folder / "config.json", config.dump());
  write_shapes(folder / "model.safetensors", tower_shapes(12, true));
  expect_error(ErrorKind::kUnsupported, "number of heads", [&] { read_checkpoint(folder); });
}

TEST(OriginalLayout, AProjectorFolderNeedsItsBase) {
  const fs::path base = test::write_model("vicuna", test::text_config(), {"model.embed_tokens.weight"});
  const fs::path folder = write_original("projector", original_config());
  fs::remove(folder / "model.safetensors");
  test::write_zeros(folder / "mm_projector.bin", {"model.mm_projector.0.weight"});
  expect_error(ErrorKind::kInput, "base model", [&] { read_checkpoint(folder); });
  const CheckpointInfo info = read_checkpoint(folder, base);
  ASSERT_EQ(info.weights.size(), 3u);
  EXPECT_EQ(info.weights[0].part, WeightSource::Part::kVisionTower);
  EXPECT_EQ(info.weights[1].path, base / "model.safetensors");
  EXPECT_EQ(info.weights[2].part, WeightSource::Part::kConnector);
}

Json adapter_config() {
  return {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 4}, {"base_model_name_or_path", "vicuna-base"}};
}

TEST(OriginalLayout, ALoraFolderTakesAdapterAndNonLoraWeights) {
  const fs::path folder = write_original("lora/out", original_config());
  fs::remove(folder / "model.safetensors");
  test::write_text(folder / "adapter_config.json", adapter_config().dump());
  test::write_zeros(folder / "adapter_model.safetensors",
                    {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"});
  test::write_zeros(folder / "non_lora_trainables.bin", {"base_model.model.model.mm_projector.0.weight"});
  expect_error(ErrorKind::kInput, "vicuna-base", [&] { read_checkpoint(folder); });
  const fs::path base = folder.parent_path() / "vicuna-base";  // a sibling is found by the name alone
  fs::create_directories(base);
  test::write_text(base / "config.json", test::text_config().dump());
  test::write_zeros(base / "model.safetensors", {"model.embed_tokens.weight"});
  const CheckpointInfo info = read_checkpoint(folder);
  EXPECT_EQ(info.layout, Layout::kOriginalLlava);
  ASSERT_EQ(info.adapters.size(), 1u);
  EXPECT_EQ(info.adapters[0].r, 2);
  EXPECT_EQ(info.weights.back().part, WeightSource::Part::kNonLora);
  EXPECT_EQ(info.weights.size(), 3u);
}

TEST(Adapter, UnsupportedKindsAreNamed) {
  const fs::path base = test::write_model("adapter-base", test::text_config(), {});
  const std::pair<const char*, Json> changes[] = {{"peft_type", "IA3"},
                                                  {"use_qalora", true},
                                                  {"bias", "all"},
                                                  {"fan_in_fan_out", true}};
  for (const auto& [key, value] : changes) {
    const fs::path folder = test::scratch_dir("adapter");
    Json config = adapter_config();
    config[key] = value;
    test::write_text(folder / "adapter_config.json", config.dump());
    test::write_zeros(folder / "adapter_model.safetensors", {"x.lora_A.weight"});
    expect_error(ErrorKind::kUnsupported, key, [&] { read_checkpoint(folder, base); });
  }
}

TEST(Adapter, PatternsKeepTheOrderOfTheFile) {
  const fs::path base = test::write_model("adapter-base", test::text_config(), {});
  const fs::path folder = test::scratch_dir("adapter");
  OrderedJson config = OrderedJson::parse(adapter_config().dump());
  config["use_dora"] = true;
  config["rank_pattern"] = OrderedJson::parse(R"({"up_proj": 4, "layers.1.mlp.up_proj": 2})");
  config["alpha_pattern"] = {{"q_proj", 1.5}};
  test::write_text(folder / "adapter_config.json", config.dump());
  test::write_zeros(folder / "adapter_model.safetensors", {"x.lora_A.weight"});
  const AdapterFiles adapter = read_checkpoint(folder, base).adapters.at(0);
  EXPECT_TRUE(adapter.use_dora);
  ASSERT_EQ(adapter.rank_pattern.size(), 2U);
  EXPECT_EQ(adapter.rank_pattern[0].first, "up_proj");
  EXPECT_EQ(adapter.alpha_pattern.at(0).second, 1.5);
  config["rank_pattern"] = {{"up_proj", "many"}};
  test::write_text(folder / "adapter_config.json", config.dump());
  expect_error(ErrorKind::kFormat, "rank_pattern", [&] { read_checkpoint(folder, base); });
}

TEST(Adapter, MissingWeightsAndAbsurdRanksAreErrors) {
  const fs::path base = test::write_model("adapter-base", test::text_config(), {});
  const fs::path folder = test::scratch_dir("adapter");
  test::write_text(folder / "adapter_config.json", adapter_config().dump());
  expect_error(ErrorKind::kInput, "adapter_model", [&] { read_checkpoint(folder, base); });
  test::write_zeros(folder / "adapter_model.safetensors", {"x.lora_A.weight"});
  Json config = adapter_config();
  config["r"] = -1;
  test::write_text(folder / "adapter_config.json", config.dump());
  expect_error(ErrorKind::kFormat, "r = -1", [&] { read_checkpoint(folder, base); });
}

TEST(Adapter, AFolderThatIsItsOwnBaseEnds) {
  const fs::path folder = test::scratch_dir("loop");
  Json config = adapter_config();
  config["base_model_name_or_path"] = folder.string();
  test::write_text(folder / "adapter_config.json", config.dump());
  test::write_zeros(folder / "adapter_model.safetensors", {"x.lora_A.weight"});
  expect_error(ErrorKind::kFormat, "base models", [&] { read_checkpoint(folder); });
}

/// Our layout with a DINOv2 tower and a text folder as language model.
fs::path write_nano(const Json& change) {
  const fs::path folder = test::scratch_dir("nano");
  Json config = {{"model_type", "llava_cpp"}, {"vision_tower", "vision_tower"},
                 {"language_model", "lm"},    {"mm_projector_type", "mlp2x_gelu"},
                 {"mm_hidden_size", 4},       {"mm_patch_merge", 2},
                 {"mm_projector_norm", true}, {"mm_projector_class_token", true},
                 {"chat_format", "qwen_2"}};
  config.update(change);
  test::write_text(folder / "config.json", config.dump());
  fs::create_directories(folder / "vision_tower");
  fs::create_directories(folder / "lm");
  const Json tower = {
      {"model_type", "dinov2"}, {"hidden_size", 4}, {"num_hidden_layers", 2}, {"num_attention_heads", 2},
      {"image_size", 70},       {"patch_size", 14}, {"mlp_ratio", 2}};
  test::write_text(folder / "vision_tower" / "config.json", tower.dump());
  const Json processor = {{"image_processor_type", "BitImageProcessor"},
                          {"do_resize", true},
                          {"size", {{"height", 56}, {"width", 56}}},
                          {"resample", 3},
                          {"do_center_crop", false},
                          {"do_rescale", true},
                          {"rescale_factor", 1.0 / 255},
                          {"do_normalize", true},
                          {"image_mean", {0.485, 0.456, 0.406}},
                          {"image_std", {0.229, 0.224, 0.225}}};
  test::write_text(folder / "vision_tower" / "preprocessor_config.json", processor.dump());
  test::write_zeros(folder / "vision_tower" / "model.safetensors", {"layernorm.weight"});
  test::write_text(folder / "lm" / "config.json", test::text_config().dump());
  test::write_zeros(folder / "lm" / "model.safetensors", {"model.embed_tokens.weight"});
  return folder;
}

TEST(NanoLayout, JoinsItsParts) {
  const fs::path folder = write_nano(Json::object());
  const CheckpointInfo fresh = read_checkpoint(folder);
  EXPECT_EQ(fresh.layout, Layout::kNano);
  EXPECT_EQ(fresh.weights.size(), 2u);  // no connector yet: it is trained from scratch
  test::write_zeros(folder / "mm_projector.safetensors", {"mm_projector.0.weight"});
  const CheckpointInfo info = read_checkpoint(folder);
  EXPECT_EQ(info.recipe, "llava-nano");
  EXPECT_EQ(info.model.tower->input_size, 56);
  EXPECT_EQ(info.model.tower->image_size, 70);
  EXPECT_TRUE(info.model.tower->apply_final_norm);
  EXPECT_EQ(info.model.tower->select_feature, SelectFeature::kClsPatch);
  EXPECT_EQ(info.model.num_image_tokens(), 5);  // 4x4 patches merged 2x2, and the class token
  EXPECT_EQ(info.model.image_token_id, -200);
  EXPECT_EQ(info.chat_format->name(), find_chat_format("qwen_2")->name());
  ASSERT_EQ(info.weights.size(), 3u);
  EXPECT_EQ(info.weights[0].part, WeightSource::Part::kVisionTower);
  EXPECT_EQ(info.weights[1].part, WeightSource::Part::kDecoder);
  EXPECT_EQ(info.weights[2].part, WeightSource::Part::kConnector);
}

TEST(NanoLayout, RefusesWhatDoesNotFit) {
  expect_error(ErrorKind::kFormat, "mm_hidden_size", [] {
    read_checkpoint(write_nano({{"mm_hidden_size", 5}}));
  });
  expect_error(ErrorKind::kFormat, "patch grid", [] {
    read_checkpoint(write_nano({{"mm_patch_merge", 3}}));
  });
  expect_error(ErrorKind::kFormat, "cls_patch", [] {
    read_checkpoint(write_nano({{"mm_vision_select_feature", "patch"}}));
  });
  expect_error(ErrorKind::kInput, "language_model", [] {
    read_checkpoint(write_nano({{"language_model", "gone.gguf"}}));
  });
  expect_error(ErrorKind::kUsage, "no-such-format", [] {
    read_checkpoint(write_nano({{"chat_format", "no-such-format"}}));
  });
}

}  // namespace
}  // namespace llava
