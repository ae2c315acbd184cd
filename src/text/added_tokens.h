#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "text/normalizer.h"
#include "text/vocabulary.h"

namespace llava {

/// A token that is found in the text before anything else looks at it.
struct AddedToken {
  std::string content;
  std::int64_t id = -1;
  bool special = false;      ///< left out by skip_special_tokens; not found where special text is disabled
  bool normalized = false;   ///< searched for in the normalised text instead of the raw one
  bool single_word = false;  ///< only between characters that are no word characters
  bool lstrip = false, rstrip = false;  ///< takes the white space before or after it
};

/// {"content", "special", …}; missing flags are as in Hugging Face's AddedToken. `what` names the place in
/// errors.
AddedToken added_token_from_json(const Json& token, std::string_view what);

/// The added tokens of a tokenizer and the search for them, as the `tokenizers` library does it: leftmost,
/// longest, first the tokens that are matched in the raw text, then in what remains, normalised, the
/// others.
class AddedTokens {
 public:
  /// A section of the text: either an added token (id >= 0) or ordinary, normalised text.
  using Visit = std::function<void(std::int64_t id, std::string text, bool at_start)>;

  /// Replaces a token with the same content or id.
  void add(AddedToken token);
  /// Call after the last add().
  void finish(const Normalizer& normalizer);
  void split(std::string_view text, bool parse_special, const Normalizer& normalizer,
             const Visit& visit) const;

  const AddedToken* find(std::string_view content) const;
  const AddedToken* find(std::int64_t id) const;
  bool is_special(std::int64_t id) const;
  std::int64_t end_id() const { return end_id_; }  ///< largest id + 1; 0 if there are none
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  template <class Text, class Token>
  void split_by(const TokenTrie& trie, std::string_view text, bool parse_special, Text on_text,
                Token on_token) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, std::size_t> by_content_;
  std::unordered_map<std::int64_t, std::size_t> by_id_;
  TokenTrie raw_, normalized_;  ///< values: index into tokens_
  std::int64_t end_id_ = 0;
};

}  // namespace llava
