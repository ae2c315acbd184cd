#pragma once
#include <cstddef>
#include <string>
#include <string_view>

#include "text/token_decoder.h"
#include "text/unicode.h"

/// The links of a TokenDecoder. Each may hold text back until later tokens cannot change it.
namespace llava {

/// The end of the chain: collects the text.
class SinkStage : public TokenDecoder::Stage {
 public:
  explicit SinkStage(std::string& out) : Stage(nullptr), out_(out) {}
  void push(std::string_view text, bool begins_token) override;
  void finish() override {}

 private:
  std::string& out_;
};

/// Characters of the byte-level map -> bytes -> one token of UTF-8, malformed bytes as U+FFFD.
class ByteLevelStage : public TokenDecoder::Stage {
 public:
  using Stage::Stage;
  void push(std::string_view text, bool begins_token) override;
  void finish() override;

 private:
  void emit(const std::string& text);
  unicode::Utf8Stream utf8_;
  bool first_ = true;
};

/// Runs of <0xXX> tokens -> one token of UTF-8; a malformed run is one U+FFFD token for each byte. A run is
/// known only when it has ended.
class ByteFallbackStage : public TokenDecoder::Stage {
 public:
  using Stage::Stage;
  void push(std::string_view text, bool begins_token) override;
  void finish() override;

 private:
  void end_run();
  std::string run_;
};

/// All tokens -> one token.
class FuseStage : public TokenDecoder::Stage {
 public:
  using Stage::Stage;
  void push(std::string_view text, bool begins_token) override;

 private:
  bool first_ = true;
};

/// Takes up to `start` times `content` from the beginning of each token and up to `stop` times from its
/// end.
class StripStage : public TokenDecoder::Stage {
 public:
  StripStage(Stage* next, std::string content, std::size_t start, std::size_t stop)
      : Stage(next), content_(std::move(content)), start_(start), stop_(stop) {}
  void push(std::string_view text, bool begins_token) override;
  void finish() override;

 private:
  void end_token();
  void emit(std::string_view text);
  std::string content_;
  std::size_t start_, stop_;
  std::size_t stripped_ = 0, held_ = 0;  ///< held_: copies of content_ at the end so far
  bool at_start_ = true, begins_ = true;
};

/// Replaces a string inside each token. `fused`: a token may come in several parts.
class ReplaceStage : public TokenDecoder::Stage {
 public:
  ReplaceStage(Stage* next, std::string pattern, std::string content, bool fused)
      : Stage(next), pattern_(std::move(pattern)), content_(std::move(content)), fused_(fused) {}
  void push(std::string_view text, bool begins_token) override;
  void finish() override;

 private:
  void end_token();
  std::string pattern_, content_;
  bool fused_;
  std::string held_;  ///< a beginning of pattern_ at the end of the token so far
  bool begins_ = true;
};

/// U+2581 -> space; dropped in the first token if `drop_first`.
class MetaspaceStage : public TokenDecoder::Stage {
 public:
  MetaspaceStage(Stage* next, std::string replacement, bool drop_first)
      : Stage(next), replacement_(std::move(replacement)), drop_first_(drop_first) {}
  void push(std::string_view text, bool begins_token) override;

 private:
  std::string replacement_;
  bool drop_first_, any_token_ = false, first_token_ = false;
};

/// A space between tokens.
class JoinStage : public TokenDecoder::Stage {
 public:
  using Stage::Stage;
  void push(std::string_view text, bool begins_token) override;

 private:
  bool first_ = true;
};

/// Hugging Face's clean_up_tokenization: no space before punctuation and English contractions.
class CleanUpStage : public TokenDecoder::Stage {
 public:
  using Stage::Stage;
  void push(std::string_view text, bool begins_token) override;
  void finish() override;

 private:
  std::string held_;
};

}  // namespace llava
