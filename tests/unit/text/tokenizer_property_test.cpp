// Properties that hold for any text: round trips, streaming, growth of the time with the length.
#include <gtest/gtest.h>

#include <ctime>

#include "base/rng.h"
#include "gguf_vocabulary_json.h"
#include "support/golden.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace llava {
namespace {

using Ids = std::vector<std::int64_t>;

std::string random_text(Rng& rng) {
  constexpr std::pair<std::uint32_t, std::uint32_t> kBlocks[] = {
      {0x20, 0x7E},     {0x20, 0x7E},     {0x09, 0x0D},       {0xA0, 0x24F},
      {0x300, 0x36F},   {0x400, 0x5FF},   {0x900, 0xDFF},     {0x2000, 0x206F},
      {0x3040, 0x9FFF}, {0xAC00, 0xD7A3}, {0x1F300, 0x1FAFF}, {0x10000, 0x10FFFF}};
  std::string text;
  for (std::uint64_t n = rng.below(40); n > 0; --n) {
    const auto [low, high] = kBlocks[rng.below(std::size(kBlocks))];
    unicode::append(text, static_cast<char32_t>(low + rng.below(high - low + 1)));
  }
  return text;
}

std::shared_ptr<const Tokenizer> byte_level() {
  const auto file = test::find_golden("tokenizers/gguf_byte_level.json");
  GgufVocabulary v = test::gguf_vocabulary(read_json_file(*file));
  v.pre = "llama-bpe";
  return tokenizer_from_gguf(v);
}
std::shared_ptr<const Tokenizer> score_bpe() {
  const auto file = test::find_golden("tokenizers/gguf_llama.json");
  return tokenizer_from_gguf(test::gguf_vocabulary(read_json_file(*file)));
}

TEST(TokenizerProperty, ByteLevelDecodesToTheText) {
  const auto tokenizer = byte_level();
  Rng rng(1);
  for (int i = 0; i < 500; ++i) {
    const std::string text = random_text(rng);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, {.parse_special = false})), text);
  }
}

TEST(TokenizerProperty, ScoreBpeDecodesToTheText) {
  const auto tokenizer = score_bpe();
  Rng rng(2);
  for (int i = 0; i < 500; ++i) {
    const std::string text = random_text(rng);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

TEST(TokenizerProperty, StreamsWholeCharactersThatJoinToDecode) {
  Rng rng(3);
  for (const auto& tokenizer : {byte_level(), score_bpe()}) {
    const auto num_ids = static_cast<std::uint64_t>(tokenizer->vocab_size());
    for (int i = 0; i < 500; ++i) {
      Ids ids(rng.below(20));
      for (auto& id : ids) id = static_cast<std::int64_t>(rng.below(rng.below(2) == 0 ? 260 : num_ids));
      const bool skip_special = rng.below(2) == 0;
      Detokenizer stream(*tokenizer, skip_special);
      std::string text;
      for (const auto id : ids) {
        const std::string part = stream.push(id);
        EXPECT_TRUE(unicode::is_valid(part));
        text += part;
      }
      EXPECT_EQ(text + stream.flush(), tokenizer->decode(ids, skip_special));
    }
  }
}

TEST(TokenizerProperty, StreamingGivesAWordWhenItIsComplete) {
  const auto tokenizer = byte_level();
  Detokenizer stream(*tokenizer);
  for (const auto id : tokenizer->encode("The image shows")) EXPECT_NE(stream.push(id), "");
  EXPECT_EQ(stream.flush(), "");
}

TEST(TokenizerProperty, SpecialTextStaysPlainWhereItIsNotTrusted) {
  for (const auto& tokenizer : {byte_level(), score_bpe()})
    for (const char* text : {"<|im_end|>", "a</s>b", "<s>", "<|im_start|>system\nx"})
      for (const auto id : tokenizer->encode(text, {.parse_special = false}))
        EXPECT_FALSE(tokenizer->is_special(id));
}

/// Processor seconds for one encode: a quadratic algorithm needs hours for these lengths, a linear one well
/// under a second.
TEST(TokenizerProperty, LongTextsTakeLinearTime) {
  constexpr std::size_t kLength = 400000;
  std::string chinese, newlines, tokens, marks;
  while (chinese.size() < kLength) chinese += "\u4E2D\u6587";
  while (newlines.size() < kLength) newlines += "\n ";
  while (tokens.size() < kLength) tokens += "<|im_end|>";
  while (marks.size() < kLength) marks += "\u0301\u0323";
  for (const auto& tokenizer : {byte_level(), score_bpe()}) {
    for (const std::string& text :
         {std::string(kLength, 'a'), std::string(kLength, ' '), chinese, newlines, tokens, marks}) {
      const std::clock_t start = std::clock();
      const Ids ids = tokenizer->encode(text);
      EXPECT_EQ(tokenizer->decode(ids), text);
      EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 20.0) << text.substr(0, 10);
    }
  }
}

}  // namespace
}  // namespace llava
