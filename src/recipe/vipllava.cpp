#include "recipe/parts.h"

// VipLLaVA (Cai et al. 2023; HF VipLlavaForConditionalGeneration): features of five blocks side by side, a
// LayerNorm in front of the connector (specification 1.7).
namespace llava::recipes {

namespace {

Recipe vipllava(std::string name, DecoderConfig decoder) {
  Recipe recipe;
  recipe.name = std::move(name);
  recipe.family = "vipllava";
  recipe.kind = RecipeKind::kLlava;
  recipe.source = "llava-hf/vip-llava-7b-hf, -13b-hf; specification 1.7";
  recipe.model.tower = clip_vit_large(336);
  recipe.model.tower->select_layers = {-2, -5, -8, -11, 6};
  recipe.model.connector = mlp2x_gelu(5 * 1024, decoder);
  recipe.model.connector.input_norm = true;
  recipe.model.decoder = std::move(decoder);
  recipe.model.torch_dtype = "float16";
  recipe.image_policy = clip_policy(336, AspectRatio::kSquare);
  recipe.chat_format = "llava_v0";
  return recipe;
}

}  // namespace

void add_vipllava(std::vector<Recipe>& table) {
  table.push_back(vipllava("vipllava-7b", vicuna_7b()));
  table.push_back(vipllava("vipllava-13b", vicuna_13b()));
}

}  // namespace llava::recipes
