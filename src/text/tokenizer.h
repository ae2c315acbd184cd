#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace llava {

/// Bytes [begin, end) of a text.
struct TextRange {
  std::size_t begin = 0, end = 0;
  bool operator==(const TextRange&) const = default;
};

/// Ids and, for each, the byte of the text at which what it stands for ends. `ends` never decreases; BOS
/// from add_special_tokens has end 0, an EOS text.size(); of the byte-fallback ids of one character those
/// before the last may share any end inside it.
struct Encoding {
  std::vector<std::int64_t> ids;
  std::vector<std::size_t> ends;
};

/// Decoding as it goes: ids in, text out that no later id can change. The texts joined are what
/// Tokenizer::decode gives.
class TokenStream {
 public:
  virtual ~TokenStream() = default;
  virtual void push(std::int64_t id, std::string& out) = 0;  ///< appends to `out`
  virtual void flush(std::string& out) = 0;                  ///< the rest; call once, at the end
};

/// Characters <-> ids. One class for every family; immutable after loading, safe to share between threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  struct EncodeOptions {
    bool add_special_tokens = false;  ///< BOS/EOS as the post-processor adds them
    bool parse_special =
        true;  ///< false: text such as "</s>" is ordinary characters (for untrusted user text)
  };
  virtual std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options) const = 0;
  std::vector<std::int64_t> encode(std::string_view text) const { return encode(text, EncodeOptions{}); }
  /// encode(), and where each id came from. No special token is recognised where its match would overlap
  /// one of the `literal` ranges (ascending; text a user typed); all else, dummy prefixes after added
  /// tokens included, is as in encode(), so without such matches the ids are equal. Works for any tokenizer
  /// with byte-level or sentencepiece pieces.
  virtual Encoding encode_spans(std::string_view text, const EncodeOptions& options,
                                std::span<const TextRange> literal) const;
  virtual std::string decode(std::span<const std::int64_t> ids, bool skip_special_tokens = false) const = 0;
  /// A stream must not outlive its tokenizer. The default gives everything at the flush.
  virtual std::unique_ptr<TokenStream> open_stream(bool skip_special_tokens) const;

  virtual std::int64_t vocab_size() const = 0;  ///< largest id + 1, added tokens included
  virtual std::optional<std::int64_t> token_to_id(std::string_view token) const = 0;
  /// The piece of an id as stored in the vocabulary ("▁the", "Ġthe", "</s>"); empty for unknown ids.
  virtual std::string id_to_token(std::int64_t id) const = 0;
  virtual bool is_special(std::int64_t id) const = 0;
  virtual std::optional<std::int64_t> bos_id() const = 0;
  virtual std::optional<std::int64_t> eos_id() const = 0;
  virtual std::optional<std::int64_t> unk_id() const = 0;
  virtual std::optional<std::int64_t> pad_id() const = 0;
};

/// The ends (see Encoding) of `ids`, which encode `text`, found by walking the text and the stored pieces
/// side by side: byte-level pieces ("Ġthe"), sentencepiece pieces ("▁the", "<0x0A>", a dummy "▁" that has
/// no text) and added tokens. Never throws on text a normaliser changed: the walk resynchronises, and the
/// ends stay ascending and inside the text.
std::vector<std::size_t> align_tokens(const Tokenizer& tokenizer, std::string_view text,
                                      std::span<const std::int64_t> ids);

/// tokenizer.json (+ tokenizer_config.json, special_tokens_map.json beside it), else tokenizer.model (+
/// added_tokens.json), of a checkpoint folder, as HF's AutoTokenizer would pick. Error{kInput} lists what
/// it looked for.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder);

std::shared_ptr<const Tokenizer> tokenizer_from_json(const Json& tokenizer_json,
                                                     const Json& tokenizer_config = Json::object());
/// `proto`: bytes of a sentencepiece model file. Behaviour of HF's *slow* LlamaTokenizer when
/// `tokenizer_config` is given (legacy flag, added tokens), of sentencepiece alone otherwise.
std::shared_ptr<const Tokenizer> tokenizer_from_sentencepiece(std::string_view proto,
                                                              const Json& tokenizer_config,
                                                              const Json& added_tokens);

/// The vocabulary inside a GGUF file, as plain data (filled by formats/gguf's caller; keys
/// tokenizer.ggml.*).
struct GgufVocabulary {
  std::string model;  ///< "gpt2" | "llama"
  std::string pre;    ///< "smollm", "llama-bpe", "qwen2", "default"…
  std::vector<std::string> tokens;
  std::vector<float> scores;              ///< llama only
  std::vector<std::int32_t> token_types;  ///< 1 normal 2 unknown 3 control 4 user-defined 5 unused 6 byte
  std::vector<std::string> merges;        ///< gpt2 only
  std::optional<std::int64_t> bos_id, eos_id, unk_id, pad_id;
  bool add_bos = false, add_eos = false, add_space_prefix = true;
};
std::shared_ptr<const Tokenizer> tokenizer_from_gguf(const GgufVocabulary& vocabulary);

/// Streaming decode: push ids, get text that is complete UTF-8 and will not change with later ids. The
/// texts joined are what `tokenizer.decode(ids, skip_special_tokens)` gives.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens = true)
      : tokenizer_(tokenizer),
        skip_special_tokens_(skip_special_tokens),
        stream_(tokenizer.open_stream(skip_special_tokens)) {}
  std::string push(std::int64_t id);
  std::string flush();  ///< the rest, incomplete bytes replaced by U+FFFD; starts over

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  std::unique_ptr<TokenStream> stream_;
};

}  // namespace llava
