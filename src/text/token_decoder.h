#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace llava {

/// The `decoder` of a tokenizer.json: turns pieces back into text, one piece after the other, so that the
/// same code serves whole and streaming decoding. Null joins the pieces with spaces. Known: ByteLevel,
/// ByteFallback, Fuse, Strip, Replace (string pattern), Metaspace, Sequence.
class TokenDecoder {
 public:
  /// One link of the chain; it has the state of one stream.
  class Stage {
   public:
    explicit Stage(Stage* next) : next_(next) {}
    virtual ~Stage() = default;
    /// A token, or the continuation of the last one where `begins_token` is false.
    virtual void push(std::string_view text, bool begins_token) = 0;
    virtual void finish() { next_->finish(); }

   protected:
    Stage* next_;
  };

  /// Decodes one sequence of pieces.
  class Stream {
   public:
    explicit Stream(const TokenDecoder& decoder);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    /// Appends the text that no later piece can change.
    void push(std::string_view piece, std::string& out);
    void finish(std::string& out);

   private:
    std::string text_;
    std::vector<std::unique_ptr<Stage>> stages_;  ///< last link first
  };

  TokenDecoder() = default;
  /// Error{kUnsupported} names an unknown type. `clean_up`: Hugging Face's clean_up_tokenization_spaces.
  static TokenDecoder from_json(const Json& decoder, bool clean_up);
  /// Bytes behind printable characters, as byte-level BPE has them.
  static TokenDecoder byte_level();
  /// SentencePiece's pieces: U+2581 to space, <0xXX> to bytes, and one leading space gone if `strip_space`.
  static TokenDecoder sentencepiece(bool strip_space);

 private:
  struct Step {
    enum class Kind { kByteLevel, kByteFallback, kFuse, kStrip, kReplace, kMetaspace, kJoin, kCleanUp };
    Kind kind;
    std::string pattern, content;
    std::size_t start = 0, stop = 0;
    bool drop_first = false;
    bool fused = false;  ///< stands after a step that joins the tokens
  };
  void add_steps(const Json& decoder);
  void add_step(Step step);
  static std::unique_ptr<Stage> make_stage(const Step& step, Stage* next);

  std::vector<Step> steps_;
};

}  // namespace llava
