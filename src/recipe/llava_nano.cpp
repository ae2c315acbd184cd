#include "recipe/parts.h"

// llava-nano, our own small default: DINOv2 ViT-S/14 at 224 pixels, 2x2 patch merge, SmolLM2-135M-Instruct.
namespace llava::recipes {

void add_llava_nano(std::vector<Recipe>& table) {
  Recipe recipe;
  recipe.name = "llava-nano";
  recipe.family = "llava-nano";
  recipe.kind = RecipeKind::kLlava;
  recipe.source = "this project (recipes/, docs/model_card)";
  // Tower: the normalised last hidden state; the class token goes to the connector too.
  recipe.model.tower = dinov2_small();
  recipe.model.tower->select_feature = SelectFeature::kClsPatch;
  // Connector: 16x16 patches merged 2x2 to 64 tokens, LayerNorm, MLP; the class token in front.
  recipe.model.connector.kind = ConnectorKind::kMlp;
  recipe.model.connector.depth = 2;
  recipe.model.connector.in_size = 384;
  recipe.model.connector.hidden_size = 576;
  recipe.model.connector.act = Activation::kGelu;
  recipe.model.connector.patch_merge = 2;
  recipe.model.connector.input_norm = true;
  recipe.model.connector.class_token = true;
  // Decoder: SmolLM2.
  recipe.model.decoder = smollm2_135m();
  // Several images, and the frames of a film, are told apart by numbers in the text.
  recipe.model.media.image_label = "Image {}:";
  recipe.model.media.frame_label = "Frame {}:";
  recipe.model.media.video_max_frames = 5;
  recipe.model.torch_dtype = "bfloat16";
  recipe.image_policy = dinov2_policy();
  table.push_back(std::move(recipe));
}

}  // namespace llava::recipes
