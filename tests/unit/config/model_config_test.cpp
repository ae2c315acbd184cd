#include "config/model_config.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace llava {
namespace {

ModelConfig llava15_7b() {
  ModelConfig m;
  m.tower = TowerConfig{};
  m.decoder.vocab_size = 32064;
  m.decoder.max_position_embeddings = 4096;
  return m;
}

// Parameter counts of the published models: llava-hf/llava-1.5-7b has 7,063,427,072, CLIP ViT-L/14-336's
// vision model 303,507,456, TinyLlama 1,100,048,384.
TEST(ModelConfig, CountsThePublishedParameters) {
  const ParameterCount count = count_parameters(llava15_7b());
  EXPECT_EQ(count.tower, 303507456);
  EXPECT_EQ(count.total(), 7063427072);
  ModelConfig tiny;
  tiny.decoder = {.hidden_size = 2048,
                  .intermediate_size = 5632,
                  .num_hidden_layers = 22,
                  .num_attention_heads = 32,
                  .num_key_value_heads = 4,
                  .head_dim = 64};
  EXPECT_EQ(count_parameters(tiny).total(), 1100048384);
}

TEST(ModelConfig, CountsImageTokens) {
  ModelConfig m = llava15_7b();
  EXPECT_EQ(m.num_image_tokens(), 576);
  m.tower->select_feature = SelectFeature::kClsPatch;
  EXPECT_EQ(m.num_image_tokens(), 577);
  m.tower = TowerConfig{.kind = TowerKind::kDinov2,
                        .hidden_size = 384,
                        .num_attention_heads = 6,
                        .image_size = 518,
                        .input_size = 224};
  m.connector.in_size = 384;
  m.connector.patch_merge = 2;
  EXPECT_EQ(m.num_image_tokens(), 64);
  m.connector.class_token = true;
  EXPECT_EQ(m.num_image_tokens(), 65);
  m.tower->select_feature = SelectFeature::kClsPatch;
  EXPECT_EQ(m.num_image_tokens(), 65);
}

TEST(ModelConfig, ReportsEveryInconsistencyAtOnce) {
  ModelConfig m = llava15_7b();
  EXPECT_NO_THROW(m.validate());
  m.decoder.num_key_value_heads = 5;
  m.connector.in_size = 7;
  m.tower->select_layers = {-40};
  try {
    m.validate();
    FAIL() << "accepted";
  } catch (const Error& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("num_key_value_heads"), std::string::npos) << text;
    EXPECT_NE(text.find("connector input width"), std::string::npos) << text;
    EXPECT_NE(text.find("mm_vision_select_layer"), std::string::npos) << text;
  }
}

TEST(ModelConfig, RefusesAbsurdSizesInsteadOfOverflowing) {
  ModelConfig m = llava15_7b();
  m.decoder.hidden_size = std::int64_t{1} << 60;
  m.tower->patch_size = 0;
  m.connector.patch_merge = 0;
  m.decoder.num_key_value_heads = 0;
  EXPECT_THROW(m.validate(), Error);
}

TEST(Activation, NamesRoundTripAndUnknownOnesAreRefused) {
  for (const Activation act : {Activation::kGelu, Activation::kGeluTanh, Activation::kQuickGelu,
                               Activation::kSilu, Activation::kRelu})
    EXPECT_EQ(activation_from_string(to_string(act)), act);
  EXPECT_THROW(activation_from_string("mish"), Error);
}

/// least = F (24 / k)^2 + 1000, factor = ceil(least / 4096): frames F, pooling stride k at 336 pixels.
TEST(ExtendContext, ScalesByTheDemosRule) {
  struct Row {
    std::int64_t frames, stride, factor;
  };
  for (const Row& row : {Row{16, 2, 1}, Row{21, 2, 1}, Row{22, 2, 2}, Row{32, 2, 2}, Row{64, 2, 3}, Row{32, 1, 5},
                         Row{32, 4, 1}, Row{250, 4, 3}}) {
    DecoderConfig decoder;
    decoder.max_position_embeddings = 4096;
    const std::int64_t side = 24 / row.stride;
    EXPECT_EQ(extend_context(decoder, row.frames * side * side), row.factor) << row.frames << " / " << row.stride;
    EXPECT_EQ(decoder.max_position_embeddings, 4096 * row.factor);
    EXPECT_EQ(decoder.rope_scaling.type, row.factor > 1 ? RopeType::kLinear : RopeType::kDefault);
    EXPECT_EQ(decoder.rope_scaling.factor, static_cast<double>(row.factor));
  }
}

TEST(ExtendContext, LeavesLongAndScaledDecodersAlone) {
  DecoderConfig mistral;
  mistral.max_position_embeddings = 32768;
  DecoderConfig scaled;
  scaled.max_position_embeddings = 4096;
  scaled.rope_scaling.type = RopeType::kDynamic;
  for (DecoderConfig* decoder : {&mistral, &scaled}) {
    const DecoderConfig before = *decoder;
    EXPECT_EQ(extend_context(*decoder, 20000), 1);
    EXPECT_TRUE(*decoder == before);
  }
}

}  // namespace
}  // namespace llava
