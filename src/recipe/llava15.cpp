#include "recipe/parts.h"

// LLaVA-1.5 (Liu et al. 2023, "Improved Baselines with Visual Instruction Tuning"; HF
// LlavaForConditionalGeneration).
namespace llava::recipes {

ConnectorConfig mlp2x_gelu(std::int64_t in_size, const DecoderConfig& decoder) {
  ConnectorConfig connector;
  connector.kind = ConnectorKind::kMlp;
  connector.depth = 2;
  connector.in_size = in_size;
  connector.hidden_size = decoder.hidden_size;
  connector.act = Activation::kGelu;
  return connector;
}

namespace {

Recipe llava15(std::string name, DecoderConfig decoder) {
  Recipe recipe;
  recipe.name = std::move(name);
  recipe.family = "llava-1.5";
  recipe.kind = RecipeKind::kLlava;
  recipe.source = "Liu et al. 2023, arXiv:2310.03744; specification 1.3";
  // Tower: the penultimate block's patches; the class token is dropped.
  recipe.model.tower = clip_vit_large(336);
  // Connector: Linear, exact GELU, Linear.
  recipe.model.connector = mlp2x_gelu(1024, decoder);
  // Decoder: Vicuna v1.5.
  recipe.model.decoder = std::move(decoder);
  recipe.model.torch_dtype = "bfloat16";
  // Image policy: padded to a square with the mean colour (fine-tuning and evaluation; pre-training
  // cropped).
  recipe.image_policy = clip_policy(336, AspectRatio::kPad);
  recipe.chat_format = "vicuna_v1";
  return recipe;
}

}  // namespace

void add_llava15(std::vector<Recipe>& table) {
  table.push_back(llava15("llava-1.5-7b", vicuna_7b()));
  table.push_back(llava15("llava-1.5-13b", vicuna_13b()));
}

}  // namespace llava::recipes
