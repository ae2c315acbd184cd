#include "recipe/parts.h"

// LLaVA-NeXT (1.6) and its video model: CLIP at 336, AnyRes tiles, a newline behind every row of features
// (specification sections 1.4 and 1.5; HF LlavaNext…, LlavaNextVideo…).
namespace llava::recipes {

namespace {

ImagePolicy next_policy() {
  ImagePolicy policy = clip_policy(336, AspectRatio::kAnyRes);
  policy.grid_pinpoints = {{336, 672}, {672, 336}, {672, 672}, {1008, 336}, {336, 1008}};
  return policy;
}

Recipe next(std::string name, std::string source, DecoderConfig decoder, std::string chat_format) {
  Recipe recipe;
  recipe.name = std::move(name);
  recipe.family = "llava-next";
  recipe.kind = RecipeKind::kLlava;
  recipe.source = std::move(source);
  // Tower: CLIP's penultimate block, trained along: the checkpoint's own weights count.
  recipe.model.tower = clip_vit_large(336);
  recipe.model.connector = mlp2x_gelu(1024, decoder);
  recipe.model.decoder = std::move(decoder);
  recipe.model.torch_dtype = "bfloat16";
  // Image policy: overview first, then tiles; padding cut away, a newline behind every row.
  recipe.image_policy = next_policy();
  recipe.model.media.merge = TileMerge::kSpatialUnpad;
  recipe.model.media.image_newline = true;
  recipe.chat_format = std::move(chat_format);
  return recipe;
}

}  // namespace

void add_llava_next(std::vector<Recipe>& table) {
  table.push_back(next("llava-next-vicuna-7b", "liuhaotian/llava-v1.6-vicuna-7b", vicuna_7b(), "vicuna_v1"));
  table.push_back(
      next("llava-next-vicuna-13b", "liuhaotian/llava-v1.6-vicuna-13b", vicuna_13b(), "vicuna_v1"));
  table.push_back(
      next("llava-next-mistral-7b", "liuhaotian/llava-v1.6-mistral-7b", mistral_7b(), "mistral_instruct"));
  table.push_back(next("llava-next-34b", "liuhaotian/llava-v1.6-34b", yi_34b(), "chatml_direct"));
  table.push_back(
      next("llava-next-llama3-8b", "lmms-lab/llama3-llava-next-8b", llama3_8b(), "llava_llama_3"));
  table.push_back(next("llava-next-72b", "lmms-lab/llava-next-72b", qwen15_72b(), "qwen_1_5"));
  table.push_back(next("llava-next-110b", "lmms-lab/llava-next-110b", qwen15_110b(), "qwen_1_5"));
  Recipe video =
      next("llava-next-video-7b", "llava-hf/LLaVA-NeXT-Video-7B-hf", vicuna_7b(), "vicuna_v1");
  video.family = "llava-next-video";
  // Frames: 24x24 features averaged 2x2 in front of the connector, no newline.
  video.model.media.video_pool = PoolMode::kAverage;
  video.model.media.video_pool_first = true;
  table.push_back(std::move(video));
}

}  // namespace llava::recipes
