#include <gtest/gtest.h>

#include <numeric>

#include "base/rng.h"
#include "prompt_test_support.h"

namespace llava {
namespace {

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
};

class SupervisedText : public testing::TestWithParam<Template> {};

/// The runs of supervised tokens decode to `expected`. A run may lack one leading space, which
/// sentencepiece's decoder drops.
void expect_supervised(const Prompt& prompt, const Tokenizer& tokenizer, std::string_view expected) {
  for (std::size_t t = 0; t < prompt.ids.size();) {
    if (prompt.labels[t] == kIgnoreIndex) {
      ++t;
      continue;
    }
    std::vector<std::int64_t> run;
    for (; t < prompt.ids.size() && prompt.labels[t] != kIgnoreIndex; ++t) {
      ASSERT_EQ(prompt.labels[t], prompt.ids[t]);
      run.push_back(prompt.ids[t]);
    }
    const std::string decoded = tokenizer.decode(run);
    if (!expected.starts_with(decoded) && expected.starts_with(" ")) expected.remove_prefix(1);
    ASSERT_TRUE(expected.starts_with(decoded))
        << "'" << decoded << "' is not the beginning of '" << expected << "'";
    expected.remove_prefix(decoded.size());
  }
  ASSERT_EQ(expected, "");
}

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
      if (m.role == "assistant") expected += GetParam().before + m.text() + GetParam().after;
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
                                         Template{"qwen_2", "llava_onevision", "", "<|im_end|>"},
                                         Template{"mpt", "llava_onevision", "", "<|im_end|>"},
                                         Template{"llava_llama_3", "llama3", "", "<|eot_id|>"}));

}  // namespace
}  // namespace llava
