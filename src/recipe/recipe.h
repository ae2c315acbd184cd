#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "config/image_policy.h"
#include "config/model_config.h"

/// What distinguishes one model from another, as values. A new combination is one function in one file and
/// one line in recipes.def (docs/adding_a_model.md). Every recipe file has the same order: source, tower,
/// connector, decoder, image policy, chat.
namespace llava {

enum class RecipeKind { kLlava, kText, kVision };
const char* to_string(RecipeKind kind);

struct Recipe {
  std::string name;    ///< "llava-1.5-7b": how the command line calls it
  std::string family;  ///< "llava-1.5": shared by the sizes of one design
  RecipeKind kind = RecipeKind::kLlava;
  std::string source;  ///< paper or published checkpoint the numbers come from
  ModelConfig model;   ///< full published shape; kText has no tower, kVision's decoder is meaningless
  std::optional<ImagePolicy> image_policy;
  std::string chat_format;  ///< a named format of text/chat_format.h; empty: the checkpoint's own
};

/// All recipes, in the order they are printed.
const std::vector<Recipe>& recipe_table();

/// The recipe of that name. Error{kUsage} names the nearest one.
const Recipe& find_recipe(std::string_view name);

/// Name for a checkpoint's config: the recipe whose shape it has exactly, else the family whose design it
/// follows at another size, else "custom". Only config contents count, never a path. Vocabulary size,
/// context length and special ids are free, since checkpoints pad and extend them.
std::string detect_recipe(const ModelConfig& model);

/// A config, a policy and a whole recipe with every value, in a fixed order, for people and for `inspect
/// recipe`.
OrderedJson describe(const ModelConfig& model);
OrderedJson describe(const ImagePolicy& policy);
OrderedJson describe(const Recipe& recipe);

}  // namespace llava
