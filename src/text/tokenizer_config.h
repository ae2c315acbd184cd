#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "text/added_tokens.h"

namespace llava {

/// What tokenizer_config.json says, with the defaults of the tokenizer class it names, as Hugging Face
/// applies them.
struct TokenizerConfig {
  std::string tokenizer_class;  ///< without the "Fast"; empty if not named
  bool clean_up_tokenization_spaces = false;
  bool legacy = true;
  bool add_bos_token = true, add_eos_token = false;
  std::optional<bool> add_prefix_space;
  std::vector<std::pair<std::string, AddedToken>>
      special_tokens;                    ///< role ("bos_token"…) and token, in HF's order
  std::vector<AddedToken> added_tokens;  ///< added_tokens_decoder, by id
  bool has_added_tokens_decoder = false;

  static TokenizerConfig from_json(const Json& tokenizer_config);
  /// LlamaTokenizer and its relatives build their post-processor from add_bos_token and add_eos_token.
  bool is_llama_class() const;
  std::optional<std::string> special(std::string_view role) const;
};

}  // namespace llava
