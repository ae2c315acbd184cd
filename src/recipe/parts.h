#pragma once
#include <vector>

#include "recipe/recipe.h"

/// Building blocks that recipes share; private to this module.
namespace llava::recipes {

TowerConfig clip_vit_large(std::int64_t image_size);
ImagePolicy clip_policy(std::int64_t size, AspectRatio aspect_ratio);
TowerConfig siglip_so400m_384();
ImagePolicy siglip_policy(std::int64_t size);
TowerConfig dinov2_small();
ImagePolicy dinov2_policy();

/// Llama's design at a size; Vicuna, TinyLlama and SmolLM2 are such.
DecoderConfig llama(std::int64_t hidden, std::int64_t layers, std::int64_t heads, std::int64_t kv_heads,
                    std::int64_t ffn);
DecoderConfig vicuna_7b();
DecoderConfig vicuna_13b();
DecoderConfig smollm2_135m();
DecoderConfig mistral_7b();
DecoderConfig llama3_8b();
DecoderConfig llama31_8b();
DecoderConfig yi_34b();
DecoderConfig qwen2_half_b();
DecoderConfig qwen2_7b();
DecoderConfig qwen2_72b();
DecoderConfig qwen15_72b();
DecoderConfig qwen15_110b();

/// mlp2x_gelu from a tower of width `in_size` to `decoder`.
ConnectorConfig mlp2x_gelu(std::int64_t in_size, const DecoderConfig& decoder);

/// One function a file.
#define LLAVA_RECIPES(name) void add_##name(std::vector<Recipe>& table);
#include "recipe/recipes.def"
#undef LLAVA_RECIPES

}  // namespace llava::recipes
