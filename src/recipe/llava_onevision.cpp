#include "recipe/parts.h"

// LLaVA-OneVision, LLaVA-Video and LLaVA-Critic: SigLIP without its last block, Qwen2, up to 36 tiles shrunk
// to the features of nine (specification sections 1.5, 1.6 and 1.9; HF LlavaOnevision…).
namespace llava::recipes {

namespace {

ImagePolicy onevision_policy() {
  ImagePolicy policy = siglip_policy(384);
  policy.aspect_ratio = AspectRatio::kAnyRes;
  for (std::int64_t width = 384; width <= 6 * 384; width += 384)
    for (std::int64_t height = 384; height <= 6 * 384; height += 384)
      policy.grid_pinpoints.push_back({width, height});
  return policy;
}

Recipe onevision(std::string name, std::string family, std::string source, DecoderConfig decoder) {
  Recipe recipe;
  recipe.name = std::move(name);
  recipe.family = std::move(family);
  recipe.kind = RecipeKind::kLlava;
  recipe.source = std::move(source);
  // Tower: 26 of SigLIP's 27 blocks, the last one's output before the norm.
  recipe.model.tower = siglip_so400m_384();
  recipe.model.tower->num_hidden_layers = 26;
  recipe.model.tower->select_layers = {-1};
  recipe.model.tower->select_feature = SelectFeature::kClsPatch;
  recipe.model.connector = mlp2x_gelu(1152, decoder);
  recipe.model.decoder = std::move(decoder);
  recipe.model.torch_dtype = "bfloat16";
  // Image policy: single images in tiles, several ones padded to one view each.
  recipe.image_policy = onevision_policy();
  MediaConfig& media = recipe.model.media;
  media.merge = TileMerge::kSpatialUnpad;
  media.image_newline = true;
  media.max_tiles = 9;
  media.tile_single_images_only = true;
  // Frames: 27x27 features to 14x14, one newline behind the film.
  media.video_pool = PoolMode::kBilinear;
  media.video_newline = Newline::kEnd;
  recipe.chat_format = "qwen_1_5";
  return recipe;
}

}  // namespace

void add_llava_onevision(std::vector<Recipe>& table) {
  table.push_back(onevision("llava-onevision-0.5b", "llava-onevision",
                            "lmms-lab/llava-onevision-qwen2-0.5b-ov", qwen2_half_b()));
  table.push_back(onevision("llava-onevision-7b", "llava-onevision", "lmms-lab/llava-onevision-qwen2-7b-ov",
                            qwen2_7b()));
  table.push_back(onevision("llava-onevision-72b", "llava-onevision",
                            "lmms-lab/llava-onevision-qwen2-72b-ov", qwen2_72b()));
  table.push_back(
      onevision("llava-critic-7b", "llava-critic", "lmms-lab/llava-critic-7b", qwen2_7b()));
  // Frames: averaged 2x2, a newline behind every row of features.
  Recipe video = onevision("llava-video-7b", "llava-video", "lmms-lab/LLaVA-Video-7B-Qwen2", qwen2_7b());
  video.model.media.video_pool = PoolMode::kAverage;
  video.model.media.video_newline = Newline::kGrid;
  video.model.media.video_max_frames = 64;
  table.push_back(std::move(video));
}

}  // namespace llava::recipes
