#include "recipe/parts.h"

// LLaVA-Mini: one token an image or frame, the text fused with all of its patches in four decoder blocks in front
// (specification section 1.8).
namespace llava::recipes {

void add_llava_mini(std::vector<Recipe>& table) {
  Recipe recipe;
  recipe.name = "llava-mini-8b";
  recipe.family = "llava-mini";
  recipe.kind = RecipeKind::kLlava;
  recipe.source = "ICTNLP/llava-mini-llama-3.1-8b";
  recipe.model.tower = clip_vit_large(336);
  recipe.model.decoder = llama31_8b();
  recipe.model.connector = mlp2x_gelu(1024, recipe.model.decoder);
  recipe.model.compressor = CompressorConfig{.size = 1, .prefusion_layer_num = 4, .resolution_ratio = 1};
  recipe.model.torch_dtype = "bfloat16";
  // Frames: one a second, squashed, each one token.
  recipe.model.media.video_max_frames = 0;
  recipe.image_policy = clip_policy(336, AspectRatio::kSquare);
  recipe.chat_format = "llava_llama_3";
  table.push_back(std::move(recipe));
}

}  // namespace llava::recipes
