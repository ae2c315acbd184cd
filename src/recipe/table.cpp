#include <algorithm>

#include "base/error.h"
#include "base/fields.h"
#include "recipe/parts.h"
#include "recipe/recipe.h"

namespace llava {

namespace {

std::vector<Recipe> make_table() {
  std::vector<Recipe> table;
#define LLAVA_RECIPES(name) recipes::add_##name(table);
#include "recipe/recipes.def"
#undef LLAVA_RECIPES
  return table;
}

/// A decoder without what checkpoints of one recipe may differ in.
DecoderConfig shape_of(DecoderConfig decoder) {
  decoder.vocab_size = 0;
  decoder.max_position_embeddings = 0;
  decoder.tie_word_embeddings = false;
  return decoder;
}

/// The way from views to prompt rows without what a checkpoint's format decides (ids, how unused video keys
/// are filled in).
MediaConfig shape_of(MediaConfig media) {
  media.video_token_id = -1;
  media.time_instruction = false;
  media.image_start_end = false;
  media.image_label.clear();
  media.frame_label.clear();
  media.video_fps = 1.0;
  media.video_max_frames = 32;
  media.video_pool = PoolMode::kNone;
  media.video_pool_stride = 2;
  if (media.video_newline != Newline::kGrid) media.video_newline = Newline::kNone;
  return media;
}

bool same_shape(const ModelConfig& a, const ModelConfig& b) {
  if (a.tower != b.tower) return false;
  if (a.tower && !(a.connector == b.connector)) return false;
  if (a.tower && shape_of(a.media) != shape_of(b.media)) return false;
  if (a.compressor != b.compressor) return false;
  if (a.tower && a.connector.kind == ConnectorKind::kIdentity) return true;  // a tower alone
  return shape_of(a.decoder) == shape_of(b.decoder);
}

/// Design without sizes.
bool same_design(const ModelConfig& a, const ModelConfig& b) {
  if (a.tower.has_value() != b.tower.has_value()) return false;
  if (!a.tower) return a.decoder.model_type == b.decoder.model_type;
  const ConnectorConfig &x = a.connector, &y = b.connector;
  if (x.kind != y.kind) return false;
  if (x.kind == ConnectorKind::kIdentity) return a.tower->kind == b.tower->kind;
  const bool plain_a = x.patch_merge == 1 && !x.input_norm && !x.class_token;
  const bool plain_b = y.patch_merge == 1 && !y.input_norm && !y.class_token;
  if (plain_a != plain_b) return false;
  if (shape_of(a.media) != shape_of(b.media) || a.compressor.has_value() != b.compressor.has_value()) return false;
  return plain_a || a.tower->kind == b.tower->kind;
}

}  // namespace

const char* to_string(RecipeKind kind) {
  switch (kind) {
    case RecipeKind::kLlava:
      return "llava";
    case RecipeKind::kText:
      return "text";
    case RecipeKind::kVision:
      return "vision";
  }
  return "";
}

const std::vector<Recipe>& recipe_table() {
  static const std::vector<Recipe> table = make_table();
  return table;
}

const Recipe& find_recipe(std::string_view name) {
  std::vector<std::string> names;
  for (const Recipe& recipe : recipe_table()) {
    if (recipe.name == name) return recipe;
    names.push_back(recipe.name);
  }
  throw Error(ErrorKind::kUsage, fmt::format("no recipe \"{}\"{}", name, did_you_mean(name, names)),
              "llava inspect recipe prints the table");
}

std::string detect_recipe(const ModelConfig& model) {
  for (const Recipe& recipe : recipe_table())
    if (same_shape(recipe.model, model)) return recipe.name;
  for (const Recipe& recipe : recipe_table())
    if (same_design(recipe.model, model)) return recipe.family;
  return "custom";
}

}  // namespace llava
