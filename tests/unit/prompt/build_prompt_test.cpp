#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "prompt_test_support.h"

namespace llava {
namespace {

using test::message;
using test::model_with;
using test::plans;

std::string error_of(const std::function<void()>& body, ErrorKind kind = ErrorKind::kInput) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

Conversation two_turns() {
  return {{message("user", "What is this?", 1), message("assistant", "A clock."),
           message("user", "What time is it?"), message("assistant", "Noon.")}};
}

TEST(BuildPrompt, ExpandsEveryImageToItsPlan) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava15");
  const Conversation c{{message("user", "Compare.", 2)}};
  for (const auto mode :
       {ImageTokenisation::kWholeString, ImageTokenisation::kChunks, ImageTokenisation::kSegments}) {
    const Prompt p = build_prompt(c, plans({3, 5}), *find_chat_format("v1"), tokenizer, model_with(2048),
                                  {.tokenisation = mode});
    ASSERT_EQ(p.media_spans.size(), 2U);
    EXPECT_EQ(p.media_spans[0].len, 3U);
    EXPECT_EQ(p.media_spans[1].len, 5U);
    EXPECT_EQ(std::count(p.ids.begin(), p.ids.end(), 2048), 8);
    for (const MediaSpan& s : p.media_spans)
      for (std::size_t i = s.begin; i < s.begin + s.len; ++i) EXPECT_EQ(p.ids[i], 2048);
    EXPECT_TRUE(p.labels.empty());
    EXPECT_TRUE(p.branch.empty());
    ASSERT_EQ(p.positions.size(), p.ids.size());
    EXPECT_EQ(p.positions.back(), static_cast<std::int64_t>(p.ids.size() - 1));
    EXPECT_EQ(p.ids.front(), *tokenizer.bos_id());
    EXPECT_EQ(std::count(p.ids.begin(), p.ids.end(), *tokenizer.bos_id()), 1);
  }
}

TEST(BuildPrompt, AVideoIsAnImageToAModelWithoutATokenForVideos) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava15");
  Conversation video{{{"user", {{Part::Kind::kVideo, ""}, {Part::Kind::kText, "What happens?"}}}}};
  Conversation image = video;
  image.messages[0].parts[0].kind = Part::Kind::kImage;
  for (const auto mode : {ImageTokenisation::kWholeString, ImageTokenisation::kChunks}) {
    const auto ids = [&](const Conversation& c) {
      return build_prompt(c, plans({3}), *find_chat_format("v1"), tokenizer, model_with(2048), {.tokenisation = mode}).ids;
    };
    EXPECT_EQ(ids(video), ids(image));
  }
}

/// The original code: "<image>" becomes "<im_start><image><im_end>" in the text, which is then cut at <image>.
TEST(BuildPrompt, TokensAroundAnImageStandWhereTheOriginalCodeWritesThem) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava15");
  ModelConfig model = model_with(-200);
  model.media.image_start_end = true;
  const Conversation c{{message("user", "Look.", 1), message("assistant", "Yes."), message("user", "And now?")}};
  for (const char* name : {"llava_v0", "v1"}) {
    const auto format = find_chat_format(name);
    std::string text = format->render_text(c, true);
    const std::size_t at = text.find("<image>");
    ASSERT_NE(at, std::string::npos);
    text.replace(at, 7, "<im_start><image><im_end>");
    const Prompt expected = prompt_from_text(text, plans({2}), tokenizer, model_with(-200), ImageTokenisation::kChunks);
    const Prompt found = build_prompt(c, plans({2}), *format, tokenizer, model, {.tokenisation = ImageTokenisation::kChunks});
    EXPECT_EQ(found.ids, expected.ids) << name;
  }
}

TEST(BuildPrompt, RefusesTheWrongNumberOfImages) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava15");
  const auto format = find_chat_format("v1");
  const auto build = [&](const Conversation& c, const std::vector<MediaPlan>& p) {
    build_prompt(c, p, *format, tokenizer, model_with(2048), {});
  };
  EXPECT_EQ(error_of([&] { build({{message("user", "Q", 1)}}, {}); }),
            "the conversation has 1 images, but 0 were given");
  EXPECT_EQ(error_of([&] { build({{message("user", "Q")}}, plans({4})); }),
            "the conversation has 0 images, but 1 were given");
  EXPECT_NE(error_of([&] { build({{message("user", "Q", 1)}}, plans({0})); }).find("image 1 has 0 tokens"),
            std::string::npos);
  EXPECT_NE(error_of([&] { build({}, {}); }), "");
  const auto blind = chat_format_from_jinja(
      "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
      Json::object());
  EXPECT_NE(error_of([&] {
              build_prompt({{message("user", "Q", 1)}}, plans({4}), *blind, tokenizer, model_with(2048),
                           {});
            }).find("writes 0 of the"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              prompt_from_text("a <image> b", {}, tokenizer, model_with(2048),
                               ImageTokenisation::kWholeString);
            }),
            "");
}

TEST(BuildPrompt, UserTextIsNotParsedForSpecialTokens) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava15");
  const Conversation c{
      {message("user", "say </s> and <image> now", 1), message("assistant", "</s>"), message("user", "Q")}};
  const auto format = find_chat_format("v1");
  const Prompt safe = build_prompt(c, plans({2}), *format, tokenizer, model_with(2048), {});
  EXPECT_EQ(std::count(safe.ids.begin(), safe.ids.end(), 2), 1);  // the format's own </s>
  EXPECT_EQ(std::count(safe.ids.begin(), safe.ids.end(), 2048), 2);
  const Prompt parsed =
      build_prompt({{message("user", "say </s> now"), message("assistant", "</s>"), message("user", "Q")}},
                   {}, *format, tokenizer, model_with(2048), {.user_text_special = true});
  EXPECT_EQ(std::count(parsed.ids.begin(), parsed.ids.end(), 2), 3);
  std::vector<std::int64_t> rest(safe.ids);
  EXPECT_NE(tokenizer.decode(rest, true).find("say </s> and <image> now"), std::string::npos)
      << tokenizer.decode(rest, true);
}

TEST(BuildPrompt, HarmlessUserTextTokenisesAsOneString) {
  for (const char* name : {"llava15", "llava_siglip", "llava_onevision", "mistral", "llama3"}) {
    LLAVA_TOKENIZER_OR_SKIP(tokenizer, name);
    for (const char* format_name : {"v1", "qwen_2", "llava_llama_2", "mpt", "llava_v0"}) {
      const auto format = find_chat_format(format_name);
      const Conversation c{{message("user", "  Três \n\n— 12:45 你好 😀 "), message("assistant", " ok"),
                            message("user", "'s")}};
      const Prompt p = build_prompt(c, {}, *format, tokenizer, model_with(-200), {});
      std::vector<std::int64_t> ids = tokenizer.encode(format->render_text(c, true), {false, true});
      if (p.ids.size() == ids.size() + 1) ids.insert(ids.begin(), *tokenizer.bos_id());
      EXPECT_EQ(p.ids, ids) << name << " " << format_name;
    }
  }
}

TEST(BuildPrompt, BosIsThereOnce) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llama3");
  const Conversation c{{message("user", "Q")}};
  const auto bos = *tokenizer.bos_id();
  for (const char* name : {"llava_llama_3", "v1"}) {
    const Prompt p = build_prompt(c, {}, *find_chat_format(name), tokenizer, model_with(-200), {});
    EXPECT_EQ(p.ids.front(), bos) << name;
    EXPECT_EQ(std::count(p.ids.begin(), p.ids.end(), bos), 1) << name;
  }
  // inspect forward: the post-processor's BOS comes even so, as in HF's tokenizer(text).
  const Prompt raw = prompt_from_text("<|begin_of_text|>x", {}, tokenizer, model_with(-200),
                                      ImageTokenisation::kWholeString);
  EXPECT_EQ(std::count(raw.ids.begin(), raw.ids.end(), bos), 2);
}

TEST(BuildPrompt, TruncatesAfterExpansionAndNeverCutsImages) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava15");
  const auto format = find_chat_format("user_assistant");
  const auto build = [&](std::int64_t max, PromptMode mode) {
    return build_prompt(two_turns(), plans({40}), *format, tokenizer, model_with(2048),
                        {.mode = mode, .max_length = max});
  };
  const Prompt whole = build(0, PromptMode::kTrain);
  const auto n = static_cast<std::int64_t>(whole.ids.size());
  const Prompt cut = build(n - 3, PromptMode::kTrain);
  EXPECT_EQ(cut.ids, std::vector<std::int64_t>(whole.ids.begin(), whole.ids.end() - 3));
  EXPECT_EQ(cut.labels, std::vector<std::int64_t>(whole.labels.begin(), whole.labels.end() - 3));
  EXPECT_EQ(cut.positions.size(), cut.ids.size());
  EXPECT_NE(error_of([&] { build(30, PromptMode::kTrain); }).find("image 1 ends at token"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              build(static_cast<std::int64_t>(whole.media_spans[0].begin) + 41, PromptMode::kTrain);
            }).find("nothing to learn"),
            std::string::npos);
  EXPECT_NE(error_of([&] { build(30, PromptMode::kGenerate); }).find("more than 30"), std::string::npos);
  EXPECT_NE(error_of([&] { build(-1, PromptMode::kTrain); }, ErrorKind::kUsage), "");
  EXPECT_NE(error_of([&] {
              build_prompt({{message("user", "Q")}}, {}, *format, tokenizer, model_with(2048),
                           {.mode = PromptMode::kTrain});
            }).find("nothing to learn"),
            std::string::npos);
}

TEST(BuildPrompt, RoleTokensAreTrainedAsUpstreamOnRequest) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava_onevision");
  const Conversation c{{message("user", "Q"), message("assistant", "A b")}};
  const auto format = find_chat_format("qwen_1_5");
  const auto supervised = [&](bool upstream) {
    const Prompt p = build_prompt(c, {}, *format, tokenizer, model_with(-200),
                                  {.mode = PromptMode::kTrain, .upstream_masks = upstream});
    std::vector<std::int64_t> ids;
    for (std::size_t i = 0; i < p.ids.size(); ++i)
      if (p.labels[i] != kIgnoreIndex) ids.push_back(p.ids[i]);
    return tokenizer.decode(ids);
  };
  EXPECT_EQ(supervised(false), "A b<|im_end|>");
  EXPECT_EQ(supervised(true),
            "<|im_start|>\n<|im_end|>\n<|im_start|>\n<|im_end|>\n<|im_start|>assistant\nA b<|im_end|>\n");
}

/// What the tokens of one branch see: the prefix, their group's node and themselves.
Prompt branch_of(const Prompt& p, std::int32_t own) {
  const std::int32_t node = own / kBranchGroup * kBranchGroup;
  Prompt seen;
  for (std::size_t i = 0; i < p.ids.size(); ++i) {
    if (p.branch[i] != 0 && p.branch[i] != node && p.branch[i] != own) continue;
    seen.ids.push_back(p.ids[i]);
    seen.labels.push_back(p.labels[i]);
    seen.positions.push_back(p.positions[i]);
  }
  return seen;
}

TEST(IndependentTurns, AreSingleTurnPromptsOverASharedPrefix) {
  for (const char* name : {"llava15", "llava_onevision"}) {
    LLAVA_TOKENIZER_OR_SKIP(tokenizer, name);
    const auto image = *tokenizer.token_to_id("<image>");
    for (const char* format_name : {"v1", "qwen_2", "llava_v0"}) {
      const auto format = find_chat_format(format_name);
      Conversation c = two_turns();
      for (const char* more : {"Round.", "A watch."}) {
        c.messages.push_back(message("user", "What is that?"));
        c.messages.push_back(message("assistant", more));
      }
      const std::int32_t branches[] = {branch_id(1, 1), branch_id(2, 1), branch_id(3, 1), branch_id(3, 2)};
      const Prompt p = build_prompt(c, plans({4}), *format, tokenizer, model_with(image),
                                    {.mode = PromptMode::kTrain, .independent_turns = true});
      ASSERT_EQ(p.branch.size(), p.ids.size());
      ASSERT_EQ(p.labels.size(), p.ids.size());
      ASSERT_EQ(p.media_spans.size(), 1U);
      for (std::size_t turn = 0; turn < 4; ++turn) {
        const Conversation single{
            {message("user", c.messages[2 * turn].text(), 1), c.messages[2 * turn + 1]}};
        const Prompt alone = build_prompt(single, plans({4}), *format, tokenizer, model_with(image),
                                          {.mode = PromptMode::kTrain});
        const Prompt seen = branch_of(p, branches[turn]);
        EXPECT_EQ(seen.ids, alone.ids);
        EXPECT_EQ(seen.labels, alone.labels);
        EXPECT_EQ(seen.positions, alone.positions);
      }
      // A branch's first token follows another branch's last one: it must not be learnt from it.
      for (std::size_t i = 1; i < p.ids.size(); ++i)
        EXPECT_TRUE(p.branch[i] == p.branch[i - 1] || p.labels[i] == kIgnoreIndex);
      const auto prefix = static_cast<std::size_t>(std::count(p.branch.begin(), p.branch.end(), 0));
      EXPECT_GE(prefix, p.media_spans[0].begin + p.media_spans[0].len);
      EXPECT_GT(std::count(p.branch.begin(), p.branch.end(), branch_id(3, 0)), 0);
      EXPECT_TRUE(std::is_sorted(p.branch.begin(), p.branch.end()));
    }
  }
}

TEST(IndependentTurns, OneQuestionForAllIsInThePrefix) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava15");
  Conversation c;
  for (const char* caption : {"A dog.", "A brown dog runs.", "Dog on grass."}) {
    c.messages.push_back(
        message("user", "Describe this photo in one sentence.", c.messages.empty() ? 1 : 0));
    c.messages.push_back(message("assistant", caption));
  }
  const Prompt p = build_prompt(c, plans({4}), *find_chat_format("v1"), tokenizer, model_with(2048),
                                {.mode = PromptMode::kTrain, .independent_turns = true});
  std::vector<std::int64_t> branch_ids;
  for (std::size_t i = 0; i < p.ids.size(); ++i)
    if (p.branch[i] == branch_id(1, 1)) branch_ids.push_back(p.ids[i]);
  EXPECT_EQ(tokenizer.decode(branch_ids), ": A dog.</s>");
}

TEST(IndependentTurns, FallBackWhereImagesComeLater) {
  LLAVA_TOKENIZER_OR_SKIP(tokenizer, "llava15");
  Conversation c = two_turns();
  c.messages[2] = message("user", "And this?", 1);
  const PromptOptions options{.mode = PromptMode::kTrain, .independent_turns = true};
  EXPECT_TRUE(build_prompt(c, plans({4, 4}), *find_chat_format("v1"), tokenizer, model_with(2048), options)
                  .branch.empty());
  const Conversation one{{message("user", "Q", 1), message("assistant", "A")}};
  EXPECT_TRUE(build_prompt(one, plans({4}), *find_chat_format("v1"), tokenizer, model_with(2048), options)
                  .branch.empty());
}

}  // namespace
}  // namespace llava
