#include "cli/verbs.h"

namespace llava {

const std::vector<Verb>& verb_table() {
  static const std::vector<Verb> table = {
      {"chat", "answers about images, once or as a conversation", setup_chat},
      {"judge", "verdict, score and reason for one or two answers", setup_judge},
      {"train", "runs the stages of a training config", setup_train},
      {"convert", "a checkpoint in another layout or dtype, adapters merged", setup_convert},
  };
  return table;
}

const std::vector<Verb>& inspect_table() {
  static const std::vector<Verb> table = {
      {"tokens", "text to token ids and back", setup_inspect_tokens},
      {"template", "a message list as the model's prompt text", setup_inspect_template},
      {"image", "what the vision tower gets of an image file", setup_inspect_image},
      {"prompt", "ids, labels and image places of a conversation", setup_inspect_prompt},
      {"forward", "every tensor of one forward pass", setup_inspect_forward},
      {"weights", "the tensors of a checkpoint against its recipe", setup_inspect_weights},
      {"recipe", "the recipe table, or one recipe as YAML", setup_inspect_recipe},
  };
  return table;
}

}  // namespace llava
