#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/tokenizer.h"

namespace llava {

/// A tokenizer made of the parts a tokenizer.json names: added tokens, normalizer, pre-tokenizer, BPE,
/// template, decoder. Byte-level vocabularies of GGUF files are made of the same parts.
class TokenizerPipeline : public Tokenizer {
 public:
  struct Parts {
    BpeModel model;
    Normalizer normalizer = {};
    PreTokenizer pre_tokenizer = {};
    TokenDecoder decoder = {};
    AddedTokens added = {};
  };
  struct SpecialIds {
    std::optional<std::int64_t> bos, eos, unk, pad;
  };

  explicit TokenizerPipeline(Parts parts) : parts_(std::move(parts)) {}
  /// The ids that add_special_tokens puts around the text.
  void set_template(std::vector<std::int64_t> before, std::vector<std::int64_t> after);
  void set_special_ids(SpecialIds ids) { special_ids_ = ids; }

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string decode(std::span<const std::int64_t> ids, bool skip_special_tokens) const override;
  std::unique_ptr<TokenStream> open_stream(bool skip_special_tokens) const override;

  std::int64_t vocab_size() const override;
  std::optional<std::int64_t> token_to_id(std::string_view token) const override;
  std::string id_to_token(std::int64_t id) const override;
  bool is_special(std::int64_t id) const override;
  std::optional<std::int64_t> bos_id() const override { return special_ids_.bos; }
  std::optional<std::int64_t> eos_id() const override { return special_ids_.eos; }
  std::optional<std::int64_t> unk_id() const override { return special_ids_.unk; }
  std::optional<std::int64_t> pad_id() const override { return special_ids_.pad; }

 private:
  void encode_section(std::string text, bool at_start, std::vector<std::int64_t>& ids) const;

  Parts parts_;
  std::vector<std::int64_t> before_, after_;
  SpecialIds special_ids_;
};

}  // namespace llava
