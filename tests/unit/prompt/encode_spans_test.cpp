#include <gtest/gtest.h>

#include "prompt_test_support.h"

namespace llava {
namespace {

class EncodeSpans : public testing::TestWithParam<const char*> {};

TEST_P(EncodeSpans, EndsCoverTheText) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, GetParam());
  for (const std::string text : {"Hello, world!", " a  b\n\nc ", "USER: 你好 😀 ASSISTANT: naïve 12:45",
                                 "x</s>y <s> z", "<image>\nQ", "▁odd <0x41>", "a</s> </s>b", ""}) {
    const Encoding e = tokenizer.encode_spans(text, {true, true}, {});
    EXPECT_EQ(e.ids, tokenizer.encode(text, {true, true})) << text;
    ASSERT_EQ(e.ends.size(), e.ids.size());
    EXPECT_TRUE(std::is_sorted(e.ends.begin(), e.ends.end())) << text;
    ASSERT_FALSE(e.ends.empty() && !text.empty());
    EXPECT_EQ(e.ends.empty() ? 0 : e.ends.back(), text.size()) << text;
  }
}

TEST_P(EncodeSpans, EndsFallBehindTheWordsTheyBelongTo) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, GetParam());
  const std::string text = "Some 你好 words 😀 and\n\n  spaces  here.";
  const Encoding e = tokenizer.encode_spans(text, {false, true}, {});
  for (const std::size_t end : e.ends) {
    if (end == text.size()) continue;
    const auto next = static_cast<unsigned char>(text[end]);
    if ((next & 0xC0) == 0x80) continue;  // inside a character of byte pieces
    // Text up to a token's end, tokenised alone, is what its tokens decode to.
    std::vector<std::int64_t> head;
    for (std::size_t i = 0; i < e.ids.size() && e.ends[i] <= end; ++i) head.push_back(e.ids[i]);
    const std::string decoded = tokenizer.decode(head);
    EXPECT_TRUE(decoded == text.substr(0, end) || " " + decoded == text.substr(0, end))
        << "'" << decoded << "' '" << text.substr(0, end) << "'";
  }
}

TEST_P(EncodeSpans, LiteralRangesKeepSpecialTokensAsText) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, GetParam());
  const std::string eos = tokenizer.id_to_token(tokenizer.eos_id().value());
  const std::string text = "one " + eos + " two" + eos + "three";
  const auto count = [&](const Encoding& e) {
    return std::count(e.ids.begin(), e.ids.end(), *tokenizer.eos_id());
  };
  const std::size_t first = 4, second = text.rfind(eos);
  EXPECT_EQ(count(tokenizer.encode_spans(text, {false, true}, {})), 2);
  const std::vector<TextRange> early = {{first, first + eos.size()}}, all = {{0, text.size()}},
                               partial = {{second + 1, second + 2}};
  EXPECT_EQ(count(tokenizer.encode_spans(text, {false, true}, early)), 1);
  EXPECT_EQ(count(tokenizer.encode_spans(text, {false, true}, partial)), 1);
  const Encoding none = tokenizer.encode_spans(text, {false, true}, all);
  EXPECT_EQ(count(none), 0);
  EXPECT_EQ(none.ids, tokenizer.encode(text, {false, false}));
  EXPECT_EQ(none.ends.back(), text.size());
  const std::vector<TextRange> beside = {{0, first}, {first + eos.size(), second}};
  EXPECT_EQ(tokenizer.encode_spans(text, {false, true}, beside).ids, tokenizer.encode(text, {false, true}));
}

TEST_P(EncodeSpans, TextBehindAnAddedTokenIsTokenisedInContext) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, GetParam());
  const std::string eos = tokenizer.id_to_token(tokenizer.eos_id().value());
  for (const std::string run : {"USER: hi ", " USER: hi ", "你好 ", "\nhi "}) {
    const std::string text = eos + run + eos;
    const std::vector<TextRange> typed = {{text.size() - eos.size(), text.size()}};
    const Encoding e = tokenizer.encode_spans(text, {false, true}, typed);
    const std::vector<std::int64_t> expected = tokenizer.encode(eos + run, {false, true});
    ASSERT_GT(e.ids.size(), expected.size()) << run;
    // The last token of `run` may merge with the typed text.
    for (std::size_t i = 0; i + 1 < expected.size(); ++i)
      EXPECT_EQ(e.ids[i], expected[i]) << "'" << run << "' token " << i;
    EXPECT_EQ(e.ends.back(), text.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, EncodeSpans,
                         testing::Values("llava15", "llava_siglip", "llava15_orig", "llava_onevision",
                                         "llama3", "mistral"));

}  // namespace
}  // namespace llava
