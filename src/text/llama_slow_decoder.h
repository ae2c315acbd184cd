#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "text/sentencepiece.h"
#include "text/token_decoder.h"

namespace llava {

/// Decoding of Hugging Face's slow LlamaTokenizer (PreTrainedTokenizer._decode with its
/// convert_tokens_to_string), token by token. Special tokens are written between what sentencepiece
/// decodes; added tokens that are not special stand apart, with a space on either side.
class LlamaSlowDecoder {
 public:
  struct Options {
    bool legacy, prefix_space, clean_up;
  };
  LlamaSlowDecoder(const SentencePiece& model, Options options);

  /// `apart`: an added token that is not special.
  void push(std::string token, bool special, bool apart, std::string& out);
  void finish(std::string& out);

 private:
  void push_to_group(std::string token, bool special);
  void end_chunk();
  void end_group(bool at_end);
  void write(std::string_view text);
  void drain(std::string& out);

  const SentencePiece& model_;
  Options options_;
  bool any_part_ = false;  ///< a group or a token that stands apart has been written
  // The group: the tokens between two that stand apart.
  std::size_t num_in_group_ = 0;
  bool after_special_ = false, group_has_text_ = false;
  // The chunk: the tokens between two special ones, decoded by sentencepiece.
  SentencePieceDecoder chunk_;
  std::string held_;  ///< legacy: the chunk's text, before which a space may still have to go
  std::string ready_;
  TokenDecoder clean_up_decoder_;
  std::unique_ptr<TokenDecoder::Stream> clean_up_;
};

}  // namespace llava
