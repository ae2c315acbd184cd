#include <gtest/gtest.h>

#include <numeric>

#include "base/rng.h"
#include "prompt_test_support.h"
#include "text/jinja_value.h"  // strip

namespace llava {
namespace {

using test::expect_supervised;
using test::model_with;
using test::plans;

/// Random words, punctuation, other scripts and white space; no end tokens of the formats.
std::string random_text(Rng& rng, bool may_have_special) {
  static const std::vector<std::string> kPieces = {
      "a",  "The ", "cat", " sat", " on",        " 12:45", "\n", "\n\n", "  ",     " 你好", "😀", "é",
      "'s", "!",    ", ",  "USER", "ASSISTANT:", "[INST]", "<",  ">",    "<image", "\t",    "##"};
  static const std::vector<std::string> kSpecial = {"</s>",    "<|im_end|>", "<s>",
                                                    "<image>", "<|eot_id|>", "<unk>"};
  std::string text;
  for (std::uint64_t n = 1 + rng.below(12); n > 0; --n)
    text += may_have_special && rng.below(8) == 0 ? kSpecial[rng.below(kSpecial.size())]
                                                  : kPieces[rng.below(kPieces.size())];
  return text;
}

Conversation random_conversation(Rng& rng) {
  Conversation c;
  const std::size_t turns = 1 + rng.below(4);
  for (std::size_t i = 0; i < turns; ++i) {
    Message question{"user", {}};
    for (std::uint64_t n = rng.below(3); n > 0 && rng.below(2) == 0; --n)
      question.parts.push_back({Part::Kind::kImage, ""});
    question.parts.push_back({Part::Kind::kText, random_text(rng, true)});
    c.messages.push_back(std::move(question));
    c.messages.push_back({"assistant", {{Part::Kind::kText, random_text(rng, true)}}});
  }
  return c;
}

struct Template {
  const char* format;
  const char* checkpoint;
  const char* before;  ///< what a format puts before and behind each answer, as trained
  const char* after;
  bool strips = false;  ///< white space around the answers is dropped
};

class SupervisedText : public testing::TestWithParam<Template> {
 protected:
  static std::string answer(const Message& message) {
    const std::string text = message.text();
    return GetParam().strips ? std::string(jinja::strip(text, jinja::Side::kBoth)) : text;
  }
};

/// The answers and their end tokens, and nothing else, are what the loss sees.
TEST_P(SupervisedText, IsExactlyTheAnswers) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, GetParam().checkpoint);
  const auto format = find_chat_format(GetParam().format);
  const std::int64_t image = tokenizer.token_to_id("<image>").value_or(-200);
  Rng rng(20261123);
  for (int i = 0; i < 1000; ++i) {
    const Conversation c = random_conversation(rng);
    std::string expected;
    for (const Message& m : c.messages)
      if (m.role == "assistant") expected += GetParam().before + answer(m) + GetParam().after;
    std::vector<std::int64_t> counts;
    for (std::size_t k = 0; k < c.num_images(); ++k)
      counts.push_back(static_cast<std::int64_t>(1 + rng.below(5)));
    const auto mode = i % 2 == 0 ? ImageTokenisation::kWholeString : ImageTokenisation::kChunks;
    const Prompt p = build_prompt(c, plans(counts), *format, tokenizer, model_with(image),
                                  {.mode = PromptMode::kTrain, .tokenisation = mode});
    for (const MediaSpan& s : p.media_spans) ASSERT_EQ(s.len, static_cast<std::size_t>(counts[s.item]));
    ASSERT_EQ(p.media_spans.size(), counts.size());
    expect_supervised(p, tokenizer, expected);
    if (HasFatalFailure()) FAIL() << GetParam().format << " conversation " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Templates, SupervisedText,
                         testing::Values(Template{"v1", "llava15", " ", "</s>"},
                                         Template{"llava_v1", "llava_siglip", " ", "</s>"},
                                         Template{"llava_llama_2", "llava15", " ", " </s>"},
                                         Template{"mistral_instruct", "llava_next_mistral", " ", " </s>"},
                                         Template{"plain", "llava15", "", "\n"},
                                         Template{"llava_v0", "llava15", " ", "\n###"},
                                         Template{"qwen_1_5", "llava_onevision", "", "<|im_end|>"},
                                         Template{"qwen_2", "llava_onevision", "", "<|im_end|>"},
                                         Template{"mpt", "llava_onevision", "", "<|im_end|>"},
                                         Template{"chatml_direct", "gemma_turns", "", "<|im_end|>"},
                                         Template{"gemma", "gemma_turns", "", "<end_of_turn>\n"},
                                         Template{"llava_llama_3", "llama3", "", "<|eot_id|>", true},
                                         Template{"llama_3", "llama3_lines", "", "<|eot_id|>", true}));

}  // namespace
}  // namespace llava
