#include "recipe/parts.h"

// LLaVA (Liu et al. 2023, "Visual Instruction Tuning"): CLIP ViT-L/14 at 224, one linear layer, Vicuna. The
// shapes of section 1.2, on Vicuna v1.5's decoder.
namespace llava::recipes {

namespace {

Recipe llava_v1(std::string name, DecoderConfig decoder) {
  Recipe recipe;
  recipe.name = std::move(name);
  recipe.family = "llava-v1";
  recipe.kind = RecipeKind::kLlava;
  recipe.source = "Liu et al. 2023, arXiv:2304.08485; specification 1.2";
  recipe.model.tower = clip_vit_large(224);
  recipe.model.connector.kind = ConnectorKind::kLinear;
  recipe.model.connector.depth = 1;
  recipe.model.connector.in_size = 1024;
  recipe.model.connector.hidden_size = decoder.hidden_size;
  recipe.model.decoder = std::move(decoder);
  recipe.model.torch_dtype = "bfloat16";
  recipe.image_policy = clip_policy(224, AspectRatio::kSquare);
  recipe.chat_format = "llava_v1";
  return recipe;
}

}  // namespace

void add_llava_v1(std::vector<Recipe>& table) {
  table.push_back(llava_v1("llava-v1-7b", vicuna_7b()));
  table.push_back(llava_v1("llava-v1-13b", vicuna_13b()));
}

}  // namespace llava::recipes
