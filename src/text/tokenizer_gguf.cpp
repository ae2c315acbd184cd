#include <algorithm>
#include <memory>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "text/added_tokens.h"
#include "text/score_merger.h"
#include "text/space_mark.h"
#include "text/stream_decode.h"
#include "text/token_decoder.h"
#include "text/tokenizer.h"
#include "text/tokenizer_pipeline.h"
#include "text/unicode.h"

namespace llava {
namespace {

using Behavior = PreTokenizer::Behavior;
constexpr std::int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kByte = 6;

void check_id(const std::optional<std::int64_t>& id, std::string_view role,
              const GgufVocabulary& vocabulary) {
  if (id && (*id < 0 || *id >= static_cast<std::int64_t>(vocabulary.tokens.size())))
    fail(ErrorKind::kFormat, "GGUF vocabulary: {} {} is not a token (there are {})", role, *id,
         vocabulary.tokens.size());
}

void check(const GgufVocabulary& v) {
  const std::size_t count = v.tokens.size();
  if (count == 0 || count > static_cast<std::size_t>(kMaxTokenId))
    fail(ErrorKind::kFormat, "GGUF vocabulary: {} tokens (1 to {} are possible)", count, kMaxTokenId);
  if (!v.token_types.empty() && v.token_types.size() != count)
    fail(ErrorKind::kFormat, "GGUF vocabulary: {} token types for {} tokens", v.token_types.size(), count);
  if (!v.scores.empty() && v.scores.size() != count)
    fail(ErrorKind::kFormat, "GGUF vocabulary: {} scores for {} tokens", v.scores.size(), count);
  for (std::size_t i = 0; i < count; ++i)
    if (!unicode::is_valid(v.tokens[i]))
      fail(ErrorKind::kFormat, "GGUF vocabulary: token {} is not UTF-8", i);
  check_id(v.bos_id, "bos_token_id", v);
  check_id(v.eos_id, "eos_token_id", v);
  check_id(v.unk_id, "unknown_token_id", v);
  check_id(v.pad_id, "padding_token_id", v);
  if (v.add_bos && !v.bos_id)
    fail(ErrorKind::kFormat, "GGUF vocabulary: add_bos_token without a bos_token_id");
  if (v.add_eos && !v.eos_id)
    fail(ErrorKind::kFormat, "GGUF vocabulary: add_eos_token without an eos_token_id");
}

std::int32_t type_of(const GgufVocabulary& v, std::size_t i) {
  return v.token_types.empty() ? kNormal : v.token_types[i];
}

/// Control, unknown and user-defined tokens are found in the text as they stand. The first two are special:
/// not searched for in untrusted text, left out by skip_special_tokens.
AddedTokens added_tokens_of(const GgufVocabulary& v) {
  AddedTokens added;
  for (std::size_t i = 0; i < v.tokens.size(); ++i) {
    const std::int32_t type = type_of(v, i);
    if ((type != kControl && type != kUnknown && type != kUserDefined) || v.tokens[i].empty()) continue;
    AddedToken token;
    token.content = v.tokens[i];
    token.id = static_cast<std::int64_t>(i);
    token.special = type != kUserDefined;
    added.add(std::move(token));
  }
  added.finish(Normalizer());
  return added;
}

/// The word splits of llama.cpp's `tokenizer.ggml.pre` names.
PreTokenizer pre_tokenizer_of(const std::string& pre, bool& ignore_merges) {
  PreTokenizer out;
  const auto split = [&](SplitScanner::Kind kind, std::size_t digits = 0) {
    out.add_split(SplitScanner(kind, digits), Behavior::kIsolated, false);
  };
  if (pre == "smollm" || pre == "starcoder" || pre == "refact" || pre == "command-r" ||
      pre == "codeshell" || pre == "exaone" || pre == "minerva-7b") {
    split(SplitScanner::Kind::kNumberRun, 1);
    split(SplitScanner::Kind::kGpt2);
  } else if (pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3") {
    split(SplitScanner::Kind::kCl100k, 3);
    ignore_merges = true;
  } else if (pre == "qwen2" || pre == "deepseek-r1-qwen" || pre == "stablelm2") {
    split(SplitScanner::Kind::kCl100k, 1);
  } else if (pre == "gpt-2" || pre == "phi-2" || pre == "olmo" || pre == "mpt") {
    split(SplitScanner::Kind::kGpt2);
  } else if (pre == "default" || pre.empty()) {
    split(SplitScanner::Kind::kPunctuationRun);
    split(SplitScanner::Kind::kGpt2);
    split(SplitScanner::Kind::kNumberRun, SIZE_MAX);
    split(SplitScanner::Kind::kAsciiDigits, 3);
  } else {
    fail(ErrorKind::kUnsupported,
         "GGUF vocabulary: pre-tokenizer \"{}\" (known: smollm, llama-bpe, qwen2, gpt-2, default and their "
         "aliases)",
         pre);
  }
  out.add_byte_level(false, false);
  return out;
}

std::vector<std::pair<std::string, std::string>> merges_of(const GgufVocabulary& v) {
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(v.merges.size());
  for (const std::string& merge : v.merges) {
    const std::size_t space = merge.find(' ', 1);  // a token may itself begin with a space
    if (space == std::string::npos)
      fail(ErrorKind::kFormat, "GGUF vocabulary: merge \"{}\" has no space", merge);
    merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return merges;
}

std::shared_ptr<const Tokenizer> byte_level_tokenizer(const GgufVocabulary& v) {
  Vocabulary vocabulary;
  for (std::size_t i = 0; i < v.tokens.size(); ++i)
    vocabulary.add(v.tokens[i], static_cast<std::int64_t>(i));
  BpeModel::Options options;
  PreTokenizer pre_tokenizer = pre_tokenizer_of(v.pre, options.ignore_merges);
  TokenizerPipeline::Parts parts{.model =
                                     BpeModel(std::move(vocabulary), merges_of(v), std::move(options))};
  parts.pre_tokenizer = std::move(pre_tokenizer);
  parts.decoder = TokenDecoder::byte_level();
  parts.added = added_tokens_of(v);
  auto tokenizer = std::make_shared<TokenizerPipeline>(std::move(parts));
  std::vector<std::int64_t> before, after;
  if (v.add_bos) before.push_back(*v.bos_id);
  if (v.add_eos) after.push_back(*v.eos_id);
  tokenizer->set_template(std::move(before), std::move(after));
  tokenizer->set_special_ids({v.bos_id, v.eos_id, v.unk_id, v.pad_id});
  return tokenizer;
}

/// The "llama" kind: sentencepiece's merges by score, with llama.cpp's rules for spaces.
class GgufLlama : public Tokenizer {
 public:
  explicit GgufLlama(GgufVocabulary v)
      : v_(std::move(v)),
        added_(added_tokens_of(v_)),
        decoder_(TokenDecoder::sentencepiece(v_.add_space_prefix)) {
    for (std::size_t i = 0; i < v_.tokens.size(); ++i) {
      const auto id = static_cast<std::int32_t>(i);
      ids_.emplace(v_.tokens[i], id);
      max_len_ = std::max(max_len_, v_.tokens[i].size());
    }
    for (int b = 0; b < 256; ++b) {
      const auto it = ids_.find(fmt::format("<0x{:02X}>", b));
      byte_ids_[b] =
          it != ids_.end() && type_of(v_, static_cast<std::size_t>(it->second)) == kByte ? it->second : -1;
    }
  }

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options) const override {
    std::vector<std::int64_t> ids;
    if (options.add_special_tokens && v_.add_bos) ids.push_back(*v_.bos_id);
    const std::string valid = unicode::is_valid(text) ? std::string(text) : unicode::replace_invalid(text);
    bool after_special = true;  // a space goes before the text and before text behind a special token
    added_.split(valid, options.parse_special, Normalizer(),
                 [&](std::int64_t id, const std::string& section, bool) {
                   if (id >= 0)
                     ids.push_back(id);
                   else
                     encode_section(section, v_.add_space_prefix && after_special, ids);
                   after_special = id >= 0;
                 });
    if (options.add_special_tokens && v_.add_eos) ids.push_back(*v_.eos_id);
    return ids;
  }

  std::string decode(std::span<const std::int64_t> ids, bool skip_special_tokens) const override {
    return decode_all(*open_stream(skip_special_tokens), ids);
  }
  std::unique_ptr<TokenStream> open_stream(bool skip_special_tokens) const override {
    return std::make_unique<Stream>(*this, skip_special_tokens);
  }

  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(v_.tokens.size()); }
  std::optional<std::int64_t> token_to_id(std::string_view token) const override {
    const auto it = ids_.find(token);
    return it == ids_.end() ? std::nullopt : std::optional<std::int64_t>(it->second);
  }
  std::string id_to_token(std::int64_t id) const override {
    return id >= 0 && id < vocab_size() ? v_.tokens[static_cast<std::size_t>(id)] : std::string();
  }
  bool is_special(std::int64_t id) const override { return added_.is_special(id); }
  std::optional<std::int64_t> bos_id() const override { return v_.bos_id; }
  std::optional<std::int64_t> eos_id() const override { return v_.eos_id; }
  std::optional<std::int64_t> unk_id() const override { return v_.unk_id; }
  std::optional<std::int64_t> pad_id() const override { return v_.pad_id; }

 private:
  class Stream : public TokenStream {
   public:
    Stream(const GgufLlama& tokenizer, bool skip)
        : tokenizer_(tokenizer), stream_(tokenizer.decoder_), skip_(skip) {}
    void push(std::int64_t id, std::string& out) override {
      if (skip_ && tokenizer_.is_special(id)) return;
      if (const std::string token = tokenizer_.id_to_token(id); !token.empty()) stream_.push(token, out);
    }
    void flush(std::string& out) override { stream_.finish(out); }

   private:
    const GgufLlama& tokenizer_;
    TokenDecoder::Stream stream_;
    bool skip_;
  };

  void encode_section(std::string_view text, bool prefix_space, std::vector<std::int64_t>& ids) const {
    std::string escaped(prefix_space ? kSpaceMark : std::string_view());
    escaped.append(replace_all(text, " ", kSpaceMark));
    std::vector<ScoreMerger::Symbol> symbols;
    for (std::size_t pos = 0; pos < escaped.size(); pos += symbols.back().text.size())
      symbols.push_back({std::string_view(escaped).substr(pos, unicode::step(escaped, pos).len)});
    ScoreMerger::merge(symbols, [this](std::string_view joined) -> ScoreMerger::Found {
      if (joined.size() > max_len_) return {};
      const auto it = ids_.find(joined);
      if (it == ids_.end()) return {};
      return {true, v_.scores.empty() ? 0.0F : v_.scores[static_cast<std::size_t>(it->second)]};
    });
    for (const auto& symbol : symbols) append_symbol(symbol.text, ids);
  }

  void append_symbol(std::string_view symbol, std::vector<std::int64_t>& ids) const {
    if (const auto it = ids_.find(symbol); it != ids_.end()) return ids.push_back(it->second);
    for (const char c : symbol) {
      const std::int32_t byte = byte_ids_[static_cast<unsigned char>(c)];
      if (byte >= 0)
        ids.push_back(byte);
      else if (v_.unk_id)
        ids.push_back(*v_.unk_id);
    }
  }

  GgufVocabulary v_;
  AddedTokens added_;
  TokenDecoder decoder_;
  std::unordered_map<std::string_view, std::int32_t> ids_;
  std::int32_t byte_ids_[256];
  std::size_t max_len_ = 0;
};

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_from_gguf(const GgufVocabulary& vocabulary) {
  check(vocabulary);
  if (vocabulary.model == "gpt2") return byte_level_tokenizer(vocabulary);
  if (vocabulary.model == "llama") return std::make_shared<GgufLlama>(vocabulary);
  fail(ErrorKind::kUnsupported, "GGUF vocabulary of model \"{}\" (known: gpt2, llama)", vocabulary.model);
}

}  // namespace llava
