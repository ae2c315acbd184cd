#include <algorithm>
#include <memory>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "text/added_tokens.h"
#include "text/llama_slow_decoder.h"
#include "text/sentencepiece.h"
#include "text/space_mark.h"
#include "text/stream_decode.h"
#include "text/tokenizer.h"
#include "text/tokenizer_config.h"
#include "text/unicode.h"

namespace llava {
namespace {

/// A .model file alone: what sentencepiece's own Encode and Decode do.
class PlainSentencePiece : public Tokenizer {
 public:
  explicit PlainSentencePiece(SentencePieceModel model) : model_(std::move(model)) {}

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions&) const override {
    return model_.encode(text);
  }
  std::string decode(std::span<const std::int64_t> ids, bool skip_special_tokens) const override {
    return decode_all(*open_stream(skip_special_tokens), ids);
  }
  std::unique_ptr<TokenStream> open_stream(bool skip_special_tokens) const override {
    return std::make_unique<Stream>(model_, skip_special_tokens);
  }

  std::int64_t vocab_size() const override { return model_.num_pieces(); }
  std::optional<std::int64_t> token_to_id(std::string_view token) const override {
    return model_.has(token) ? std::optional(model_.find(token)) : std::nullopt;
  }
  std::string id_to_token(std::int64_t id) const override {
    return id >= 0 && id < model_.num_pieces() ? model_.piece(id).text : std::string();
  }
  bool is_special(std::int64_t id) const override {
    if (id < 0 || id >= model_.num_pieces()) return false;
    const auto type = model_.piece(id).type;
    return type == SentencePieceModel::PieceType::kControl ||
           type == SentencePieceModel::PieceType::kUnknown;
  }
  std::optional<std::int64_t> bos_id() const override { return token_to_id("<s>"); }
  std::optional<std::int64_t> eos_id() const override { return token_to_id("</s>"); }
  std::optional<std::int64_t> unk_id() const override { return model_.unk_id(); }
  std::optional<std::int64_t> pad_id() const override { return token_to_id("<pad>"); }

 private:
  class Stream : public TokenStream {
   public:
    Stream(const SentencePiece& model, bool skip_special_tokens)
        : model_(model),
          decoder_(model, model.model().add_dummy_prefix),
          skip_special_tokens_(skip_special_tokens) {}
    void push(std::int64_t id, std::string& out) override {
      if (id < 0 || id >= model_.num_pieces()) return;
      const auto& piece = model_.piece(id);
      const bool unknown = piece.type == SentencePieceModel::PieceType::kUnknown;
      if (!(skip_special_tokens_ && unknown)) decoder_.push(piece.text, out);
    }
    void flush(std::string& out) override { decoder_.flush(out); }

   private:
    const SentencePiece& model_;
    SentencePieceDecoder decoder_;
    bool skip_special_tokens_;
  };

  SentencePiece model_;
};

/// Hugging Face's slow LlamaTokenizer around a .model file.
class SlowLlama : public Tokenizer {
 public:
  SlowLlama(SentencePieceModel model, const TokenizerConfig& config, const Json& added_json);

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string decode(std::span<const std::int64_t> ids, bool skip_special_tokens) const override;
  std::unique_ptr<TokenStream> open_stream(bool skip_special_tokens) const override;

  std::int64_t vocab_size() const override { return std::max(model_.num_pieces(), added_.end_id()); }
  std::optional<std::int64_t> token_to_id(std::string_view token) const override {
    if (const AddedToken* added = added_.find(token)) return added->id;
    return model_.has(token) ? std::optional(model_.find(token)) : std::nullopt;
  }
  std::string id_to_token(std::int64_t id) const override {
    if (const AddedToken* added = added_.find(id)) return added->content;
    return id >= 0 && id < model_.num_pieces() ? model_.piece(id).text : std::string();
  }
  bool is_special(std::int64_t id) const override { return special_.contains(id_to_token(id)); }
  std::optional<std::int64_t> bos_id() const override { return id_of("bos_token"); }
  std::optional<std::int64_t> eos_id() const override { return id_of("eos_token"); }
  std::optional<std::int64_t> unk_id() const override { return id_of("unk_token"); }
  std::optional<std::int64_t> pad_id() const override { return id_of("pad_token"); }

 private:
  void read_added_tokens(const Json& added_json);
  void add_missing_special_tokens();
  std::vector<std::int64_t> encode_section(std::string_view text) const;
  std::optional<std::int64_t> id_of(const char* role) const {
    const auto token = config_.special(role);
    return token ? token_to_id(*token) : std::nullopt;
  }

  SentencePiece model_;
  TokenizerConfig config_;
  AddedTokens added_;
  std::unordered_set<std::string> special_;  ///< all_special_tokens
  std::unordered_set<std::string> apart_;    ///< decoded as words of their own ("legacy added tokens")
  bool prefix_space_ = true;
  std::size_t unk_len_ = 0;  ///< pieces of the unknown token's text
};

SentencePieceModel without_dummy_prefix_if(bool condition, SentencePieceModel model) {
  if (condition) model.add_dummy_prefix = false;
  return model;
}

SlowLlama::SlowLlama(SentencePieceModel model, const TokenizerConfig& config, const Json& added_json)
    : model_(without_dummy_prefix_if(!config.legacy, std::move(model))),
      config_(config),
      prefix_space_(config.add_prefix_space.value_or(true)) {
  for (const auto& [role, token] : config_.special_tokens) special_.insert(token.content);
  read_added_tokens(added_json);
  add_missing_special_tokens();
  for (const AddedToken& token : added_.tokens()) {
    if (token.single_word)
      fail(ErrorKind::kUnsupported, "added token \"{}\" with single_word", token.content);
    if (!special_.contains(token.content)) apart_.insert(token.content);
  }
  for (const auto& [role, token] : config_.special_tokens)
    if (role == "additional_special_tokens" &&
        token_to_id(token.content).value_or(0) >= model_.num_pieces())
      apart_.insert(token.content);
  added_.finish(Normalizer());
  unk_len_ = model_.encode(config_.special("unk_token").value_or("<unk>")).size();
  if (config_.add_bos_token && !bos_id())
    fail(ErrorKind::kFormat, "add_bos_token is set, but there is no bos_token");
  if (config_.add_eos_token && !eos_id())
    fail(ErrorKind::kFormat, "add_eos_token is set, but there is no eos_token");
}

/// The tokens of tokenizer_config.json; of added_tokens.json where that has none.
void SlowLlama::read_added_tokens(const Json& added_json) {
  std::vector<AddedToken> tokens = config_.added_tokens;
  if (!config_.has_added_tokens_decoder && added_json.is_object()) {
    for (const auto& [content, id] : added_json.items()) {
      if (!id.is_number_integer())
        fail(ErrorKind::kFormat, "added_tokens.json: the id of \"{}\" must be a number", content);
      const bool special = special_.contains(content);
      tokens.push_back(
          {.content = content, .id = id.get<std::int64_t>(), .special = special, .normalized = !special});
    }
  }
  for (AddedToken& token : tokens) {
    token.normalized = false;  // the slow tokenizer searches the raw text for all of them
    if (!token.content.empty()) added_.add(std::move(token));
  }
}

/// Special tokens that are no added tokens yet get their piece's id, or the next free one.
void SlowLlama::add_missing_special_tokens() {
  std::int64_t next = model_.num_pieces();
  for (const AddedToken& token : added_.tokens())
    if (!model_.has(token.content)) ++next;
  for (const auto& [role, named] : config_.special_tokens) {
    if (added_.find(named.content) != nullptr) continue;
    AddedToken token = named;
    token.normalized = false;
    token.id = model_.has(token.content) ? model_.find(token.content) : next++;
    added_.add(std::move(token));
  }
}

std::vector<std::int64_t> SlowLlama::encode(std::string_view text, const EncodeOptions& options) const {
  std::string whole = unicode::is_valid(text) ? std::string(text) : unicode::replace_invalid(text);
  const bool modern = !config_.legacy && !whole.empty();
  if (modern) {
    whole = replace_all(whole, kSpaceMark, " ");
    if (prefix_space_) whole.insert(0, kSpaceMark);
  }
  std::vector<std::int64_t> ids;
  const auto visit = [&](std::int64_t id, const std::string& section, bool) {
    if (id >= 0) return ids.push_back(id);
    const auto part = encode_section(section);
    ids.insert(ids.end(), part.begin(), part.end());
  };
  if (options.parse_special)
    added_.split(whole, true, Normalizer(), visit);
  else if (!whole.empty())
    visit(-1, whole, true);
  if (modern && ids.size() > 1 && id_to_token(ids[0]) == kSpaceMark && is_special(ids[1]))
    ids.erase(ids.begin());
  if (options.add_special_tokens) {
    if (config_.add_bos_token) ids.insert(ids.begin(), *bos_id());
    if (config_.add_eos_token) ids.push_back(*eos_id());
  }
  return ids;
}

/// Without the dummy prefix sentencepiece would still swallow a leading space, so the text is encoded
/// behind the unknown token's text, whose pieces are dropped.
std::vector<std::int64_t> SlowLlama::encode_section(std::string_view text) const {
  if (config_.legacy || !(text.starts_with(kSpaceMark) || text.starts_with(' ')))
    return model_.encode(text);
  auto ids = model_.encode(config_.special("unk_token").value_or("") + std::string(text));
  if (ids.size() >= unk_len_) ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(unk_len_));
  return ids;
}

std::string SlowLlama::decode(std::span<const std::int64_t> ids, bool skip_special_tokens) const {
  return decode_all(*open_stream(skip_special_tokens), ids);
}

std::unique_ptr<TokenStream> SlowLlama::open_stream(bool skip_special_tokens) const {
  class Stream : public TokenStream {
   public:
    Stream(const SlowLlama& tokenizer, bool skip_special_tokens)
        : tokenizer_(tokenizer),
          skip_special_tokens_(skip_special_tokens),
          decoder_(tokenizer.model_, {.legacy = tokenizer.config_.legacy,
                                      .prefix_space = tokenizer.prefix_space_,
                                      .clean_up = tokenizer.config_.clean_up_tokenization_spaces}) {}
    void push(std::int64_t id, std::string& out) override {
      const std::string token = tokenizer_.id_to_token(id);
      const bool special = tokenizer_.special_.contains(token);
      if (token.empty() || (skip_special_tokens_ && special)) return;
      decoder_.push(token, special, tokenizer_.apart_.contains(token), out);
    }
    void flush(std::string& out) override { decoder_.finish(out); }

   private:
    const SlowLlama& tokenizer_;
    bool skip_special_tokens_;
    LlamaSlowDecoder decoder_;
  };
  return std::make_unique<Stream>(*this, skip_special_tokens);
}

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_from_sentencepiece(std::string_view proto,
                                                              const Json& tokenizer_config,
                                                              const Json& added_tokens) {
  SentencePieceModel model = parse_sentencepiece(proto);
  if (!tokenizer_config.is_object() || tokenizer_config.empty())
    return std::make_shared<PlainSentencePiece>(std::move(model));
  Json json = tokenizer_config;
  if (!json.contains("tokenizer_class")) json["tokenizer_class"] = "LlamaTokenizer";
  const TokenizerConfig config = TokenizerConfig::from_json(json);
  if (config.tokenizer_class != "LlamaTokenizer")
    fail(ErrorKind::kUnsupported, "tokenizer.model for the class \"{}\" (known: LlamaTokenizer)",
         config.tokenizer_class);
  return std::make_shared<SlowLlama>(std::move(model), config, added_tokens);
}

}  // namespace llava
