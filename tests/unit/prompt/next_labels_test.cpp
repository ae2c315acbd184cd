#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "prompt_test_support.h"

namespace llava {
namespace {

using test::expect_supervised;
using test::model_with;
using test::plans;

/// A template with a tokenizer, and how LLaVA-NeXT's training code tokenises for it.
struct Pair {
  const char* format;
  const char* checkpoint;
  ImageTokenisation tokenisation;
  const char* before;  ///< what the format puts before and behind each answer, as trained
  const char* after;
  std::size_t num_regular;  ///< samples on which upstream's labels are what its author meant
};

constexpr auto kChunks = ImageTokenisation::kChunks, kWhole = ImageTokenisation::kWholeString;

class NextLabels : public testing::TestWithParam<Pair> {
 protected:
  Prompt train(const Conversation& c, const Tokenizer& tokenizer, bool as_upstream) const {
    return build_prompt(c, plans(std::vector<std::int64_t>(c.num_images(), 1)),
                        *find_chat_format(GetParam().format), tokenizer, model_with(-200),
                        {.mode = PromptMode::kTrain,
                         .tokenisation = GetParam().tokenisation,
                         .user_text_special = as_upstream,
                         .upstream_masks = as_upstream});
  }

  static Conversation conversation(const Json& golden, const std::string& sample) {
    Json record = {{"id", sample}, {"conversations", golden["samples"][sample]}};
    record["images"] = Json::array();
    for (const Json& turn : record["conversations"]) {
      const auto text = turn["value"].get<std::string>();
      for (std::size_t at = text.find("<image>"); at != std::string::npos; at = text.find("<image>", at + 1))
        record["images"].push_back("x");
    }
    return conversation_from_llava(record);
  }

  static bool has_role_tokens() {
    return find_chat_format(GetParam().format)->upstream_mask().kind == UpstreamMask::Kind::kRoleTokens;
  }

  /// A record that no template can express; Qwen's and Llama 3's code takes it all the same.
  static bool is_refused(const std::string& sample) {
    return sample == "two_questions" || sample == "system_later";
  }

  /// False where upstream raises, masks all of a sample ("tokenization mismatch": an end token in a text, no
  /// last answer; mpt: several turns by a tokenizer without BOS), leaves out an empty answer's end token,
  /// masks the first piece of an answer that is one with its header's line break, or keeps white space
  /// around a text because <image> stands before it already. This program trains the answer in all of these.
  static bool is_regular(const Json& row) {
    const std::string sample = row["sample"], checkpoint = row["checkpoint"];
    if (row.contains("error") || is_refused(sample)) return false;
    const std::vector<std::int64_t> labels = row["labels"];
    if (std::all_of(labels.begin(), labels.end(), [](std::int64_t l) { return l == kIgnoreIndex; }))
      return false;
    if (sample == "leading_lines") return checkpoint != "gemma_turns";
    if (sample == "empty_answer") return has_role_tokens();
    return sample != "image_and_space";
  }

  static std::vector<Json> rows(const Json& golden, bool regular) {
    std::vector<Json> found;
    for (const Json& row : golden["rows"])
      if (row["template"] == GetParam().format && row["checkpoint"] == GetParam().checkpoint &&
          is_regular(row) == regular)
        found.push_back(row);
    return found;
  }
};

TEST_P(NextLabels, AreReproduced) {
  LLAVA_GOLDEN_OR_SKIP(path, "next_labels.json");
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, GetParam().checkpoint);
  const Json golden = Json::parse(read_file(path));
  const std::vector<Json> regular = rows(golden, true);
  for (const Json& row : regular) {
    const std::string sample = row["sample"];
    const std::vector<std::int64_t> ids = row["input_ids"];
    std::vector<std::int64_t> labels = row["labels"];
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (ids[i] == -200) labels[i] = kIgnoreIndex;  // as upstream's model does when it puts features there
    const Prompt prompt = train(conversation(golden, sample), tokenizer, true);
    EXPECT_EQ(prompt.ids, ids) << sample;
    EXPECT_EQ(prompt.labels, labels) << sample;
  }
  EXPECT_EQ(regular.size(), GetParam().num_regular);
}

TEST_P(NextLabels, AnswersAreTrainedWhereUpstreamFails) {
  LLAVA_GOLDEN_OR_SKIP(path, "next_labels.json");
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, GetParam().checkpoint);
  const Json golden = Json::parse(read_file(path));
  for (const Json& row : rows(golden, false)) {
    const std::string sample = row["sample"];
    SCOPED_TRACE(sample);
    if (is_refused(sample)) {
      EXPECT_THROW(conversation(golden, sample), Error);
      continue;
    }
    const Conversation c = conversation(golden, sample);
    if (sample == "system_first" && std::string(GetParam().format) == "gemma_instruct") {
      EXPECT_THROW(train(c, tokenizer, false), Error);  // Gemma has no system turn
      continue;
    }
    const auto normalised = [&](const std::string& text) {  // Qwen's tokenizer composes letters and marks
      return sample == "unicode" ? tokenizer.decode(tokenizer.encode(text, {})) : text;
    };
    std::string expected;
    for (const Message& m : c.messages)
      if (m.role == "assistant") expected += GetParam().before + normalised(m.text()) + GetParam().after;
    expect_supervised(train(c, tokenizer, false), tokenizer, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Templates, NextLabels,
    testing::Values(Pair{"mistral_instruct", "llava15", kChunks, " ", " </s>", 14},
                    Pair{"mistral_instruct", "llava_next_mistral", kChunks, " ", " </s>", 14},
                    Pair{"mistral_instruct", "mistral", kChunks, " ", " </s>", 14},
                    Pair{"mpt", "gemma_turns", kChunks, "", "<|im_end|>", 13},
                    Pair{"mpt", "llava_onevision", kChunks, "", "<|im_end|>", 7},
                    Pair{"chatml_direct", "gemma_turns", kChunks, "", "<|im_end|>", 13},
                    Pair{"mistral_orca", "gemma_turns", kChunks, "", "<|im_end|>", 13},
                    Pair{"mistral_zephyr", "llava15_orig", kChunks, "", "</s>", 14},
                    Pair{"qwen_1_5", "llava_onevision", kWhole, "", "<|im_end|>", 17},
                    Pair{"qwen_2_5", "llava_onevision", kWhole, "", "<|im_end|>", 0},
                    Pair{"gemma_instruct", "gemma_turns", kChunks, "", "<end_of_turn>\n", 13},
                    Pair{"llava_llama_3", "llama3", kWhole, "", "<|eot_id|>", 17},
                    Pair{"llava_llama_3", "llama3_lines", kWhole, "", "<|eot_id|>", 17}));

}  // namespace
}  // namespace llava
