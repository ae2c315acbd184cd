#include "loader/weight_names.h"

#include <gtest/gtest.h>

namespace llava {
namespace {

using Part = WeightSource::Part;

TEST(CanonicalName, CoversEveryLayout) {
  const struct {
    const char *from, *to;
    Part part = Part::kAll;
  } kCases[] = {
      {"model.layers.3.self_attn.q_proj.weight", "language_model.layers.3.self_attn.q_proj.weight"},
      {"model.embed_tokens.weight", "language_model.embed_tokens.weight"},
      {"lm_head.weight", "lm_head.weight"},
      {"language_model.model.norm.weight", "language_model.norm.weight"},
      {"language_model.lm_head.weight", "lm_head.weight"},
      {"model.language_model.layers.0.mlp.up_proj.weight", "language_model.layers.0.mlp.up_proj.weight"},
      {"language_model.layers.0.mlp.up_proj.weight", "language_model.layers.0.mlp.up_proj.weight"},
      {"vision_tower.vision_model.pre_layrnorm.bias", "vision_tower.pre_layrnorm.bias"},
      {"model.vision_tower.vision_model.encoder.layers.1.mlp.fc1.bias",
       "vision_tower.encoder.layers.1.mlp.fc1.bias"},
      {"model.vision_tower.vision_tower.vision_model.embeddings.class_embedding",
       "vision_tower.embeddings.class_embedding"},
      {"multi_modal_projector.linear_1.weight", "mm_projector.0.weight"},
      {"model.multi_modal_projector.linear_2.bias", "mm_projector.2.bias"},
      {"model.mm_projector.4.weight", "mm_projector.4.weight"},
      {"model.mm_projector.weight", "mm_projector.weight"},
      {"mm_projector.norm.weight", "mm_projector.norm.weight", Part::kConnector},
      {"model.image_newline", "image_newline"},
      {"vision_model.embeddings.position_ids", "vision_tower.embeddings.position_ids", Part::kVisionTower},
      {"embeddings.cls_token", "vision_tower.embeddings.cls_token", Part::kVisionTower},
      {"encoder.layer.0.norm1.weight", "vision_tower.encoder.layer.0.norm1.weight", Part::kVisionTower},
      {"dinov2.layernorm.weight", "vision_tower.layernorm.weight", Part::kVisionTower},
      {"base_model.model.model.mm_projector.0.weight", "mm_projector.0.weight", Part::kNonLora},
      {"something.else", "something.else"},
  };
  for (const auto& c : kCases) EXPECT_EQ(canonical_name(c.from, c.part), c.to) << c.from;
}

TEST(CanonicalName, OfGgufAndAdapters) {
  EXPECT_EQ(canonical_gguf_name("blk.12.attn_output.weight"),
            "language_model.layers.12.self_attn.o_proj.weight");
  EXPECT_EQ(canonical_gguf_name("blk.0.attn_q.bias"), "language_model.layers.0.self_attn.q_proj.bias");
  EXPECT_EQ(canonical_gguf_name("blk.0.attn_norm.weight"),
            "language_model.layers.0.input_layernorm.weight");
  EXPECT_EQ(canonical_gguf_name("output.weight"), "lm_head.weight");
  EXPECT_EQ(canonical_gguf_name("output_norm.weight"), "language_model.norm.weight");
  for (const char* odd :
       {"blk.", "blk.x.attn_q.weight", "blk.1", "blk.1.strange.weight", "rope_freqs.weight"})
    EXPECT_EQ(canonical_gguf_name(odd), odd);
  EXPECT_EQ(canonical_adapter_name("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"),
            "language_model.layers.0.mlp.up_proj.lora_A.weight");
  EXPECT_EQ(
      canonical_adapter_name("base_model.model.language_model.layers.0.mlp.up_proj.lora_B.default.weight"),
      "language_model.layers.0.mlp.up_proj.lora_B.weight");
}

TEST(LegallyUnused, IsWhatFilesHoldAndModelsSkip) {
  const std::set<std::string, std::less<>> wanted = {"vision_tower.encoder.layers.0.mlp.fc1.weight",
                                                     "vision_tower.encoder.layers.1.mlp.fc1.weight"};
  for (const char* name :
       {"vision_tower.encoder.layers.2.mlp.fc1.weight", "vision_tower.encoder.layers.10.mlp.fc1.weight",
        "vision_tower.post_layernorm.weight", "vision_tower.embeddings.position_ids",
        "vision_tower.head.probe", "vision_tower.embeddings.mask_token",
        "language_model.layers.0.self_attn.rotary_emb.inv_freq",
        "text_model.encoder.layers.0.mlp.fc1.weight", "visual_projection.weight", "logit_scale"})
    EXPECT_TRUE(is_legally_unused(name, wanted)) << name;
  for (const char* name : {"vision_tower.encoder.layers.1.mlp.fc1.weight",
                           "vision_tower.encoder.layers.1.mlp.fc9.weight", "vision_tower.strange.weight",
                           "language_model.layers.9.mlp.up_proj.weight", "mm_projector.6.weight"})
    EXPECT_FALSE(is_legally_unused(name, wanted)) << name;
}

}  // namespace
}  // namespace llava
