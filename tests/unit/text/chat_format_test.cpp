#include "text/chat_format.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "support/golden.h"

namespace llava {
namespace {

Conversation chat(const std::vector<std::pair<const char*, const char*>>& turns) {
  Conversation c;
  for (const auto& [role, text] : turns) c.messages.push_back({role, {{Part::Kind::kText, text}}});
  return c;
}

std::string trained_text(const std::vector<Segment>& segments) {
  std::string text;
  for (const Segment& s : segments)
    if (s.trained) text += s.text + "|";
  return text;
}

TEST(ChatFormat, NamedFormatsRenderTheOriginalPrompts) {
  LLAVA_GOLDEN_OR_SKIP(path, "original_labels.json");
  const Json golden = Json::parse(read_file(path));
  static const std::map<std::string, std::vector<std::pair<const char*, const char*>>> kSamples = {
      {"one", {{"user", "<image>\nWhat is in the image?"}, {"assistant", "A red cat on a chair."}}},
      {"image_last", {{"user", "What colour is it?\n<image>"}, {"assistant", "Red."}}},
      {"turns",
       {{"user", "<image>\nWhat is this?"},
        {"assistant", "A clock."},
        {"user", "What time is it?"},
        {"assistant", "It's 12:45.\nAlmost one."},
        {"user", "Thanks!"},
        {"assistant", "You're welcome."}}},
      {"text_only",
       {{"user", "Hello, who are you?"},
        {"assistant", "I am an assistant."},
        {"user", "  Spaces   and\n\nlines "},
        {"assistant", "你好 😀"}}},
      {"gpt_first", {{"assistant", "I begin."}, {"user", "<image>\nQ?"}, {"assistant", "A."}}},
      {"two_images", {{"user", "<image>\n<image>\nCompare."}, {"assistant", "The same."}}}};
  std::size_t equal = 0;
  for (const auto& [name, rows] : golden["prompts"].items())
    for (const Json& row : rows) {
      Conversation c = chat(kSamples.at(row["sample"]));
      const bool generation = row["generation"];
      if (generation) c.messages.pop_back();
      const auto format = find_chat_format(name);
      if (row.contains("prompt")) {
        EXPECT_EQ(format->render_text(c, generation), row["prompt"]) << name << " " << row["sample"];
        ++equal;
      } else if (!row["error"].get<std::string>().starts_with(
                     "TypeError")) {  // plain: upstream has no answer's separator
        EXPECT_THROW(format->render_text(c, generation), Error) << name;
      }
    }
  EXPECT_GT(equal, 150U);
}

TEST(ChatFormat, OtherNamedFormats) {
  const Conversation c = chat({{"user", "Q"}, {"assistant", "A"}, {"user", "R"}});
  EXPECT_EQ(find_chat_format("qwen_2")->render_text(c, true),
            "<|im_start|>system\nYou are a helpful "
            "assistant.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
            "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(find_chat_format("chatml")->render_text(chat({{"user", "Q"}}), true),
            "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(find_chat_format("gemma_instruct")->render_text(chat({{"user", "Q"}}), true),
            "<start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_EQ(find_chat_format("mistral_zephyr")->render_text(chat({{"user", "Q"}}), true),
            "<|system|>\nYou are a helpful AI assistant.</s><|user|>\nQ</s><|assistant|>\n");
  EXPECT_EQ(find_chat_format("llava_llama_3")->render_text(chat({{"system", "S"}, {"user", "Q"}}), true),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>"
            "user<|end_header_id|>\n\nQ<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(find_chat_format("user_assistant")->render_text(c, true),
            "USER: Q ASSISTANT: A</s>USER: R ASSISTANT:");
  EXPECT_EQ(find_chat_format("mistral_instruct")->render_text(c, true),
            "[INST] Q [/INST] A </s>[INST] R [/INST]");
}

TEST(ChatFormat, SystemMessageReplacesTheDefault) {
  const Conversation c = chat({{"system", "Short."}, {"user", "Q"}});
  EXPECT_EQ(find_chat_format("v1")->render_text(c, true), "Short. USER: Q ASSISTANT:");
  EXPECT_EQ(find_chat_format("llava_llama_2")->render_text(c, true),
            "[INST] <<SYS>>\nShort.\n<</SYS>>\n\nQ [/INST]");
  EXPECT_THROW(find_chat_format("gemma")->render(c, true), Error);
  EXPECT_THROW(find_chat_format("plain")->render(c, true), Error);
  EXPECT_THROW(find_chat_format("v1")->render(chat({{"user", "Q"}, {"system", "S"}}), true), Error);
  EXPECT_THROW(find_chat_format("v1")->render(chat({{"robot", "Q"}}), true), Error);
}

TEST(ChatFormat, SegmentsSayWhatIsTrainedAndWhoWroteIt) {
  Conversation c = chat({{"user", "Q"}, {"assistant", "A"}});
  c.messages[0].parts.insert(c.messages[0].parts.begin(), {Part::Kind::kImage, "x.png"});
  const auto segments = find_chat_format("user_assistant")->render(c, false);
  const std::vector<Segment> expected = {{Segment::Kind::kText, "USER: ", false, false, 0, 0},
                                         {Segment::Kind::kImage, "<image>", false, false, 0, 0},
                                         {Segment::Kind::kText, "\nQ", false, true, 0, 0},
                                         {Segment::Kind::kText, " ", false, false, 0, 0},
                                         {Segment::Kind::kText, "ASSISTANT:", false, false, 0, 1},
                                         {Segment::Kind::kText, " ", true, false, 0, 1},
                                         {Segment::Kind::kText, "A", true, true, 0, 1},
                                         {Segment::Kind::kText, "</s>", true, false, 0, 1}};
  EXPECT_EQ(segments, expected);
}

TEST(ChatFormat, TrainingRendersAnswersAndEnds) {
  const Conversation c = chat({{"user", "Q"}, {"assistant", "A1"}, {"user", "R"}, {"assistant", "A2"}});
  const auto trained = [&](const char* name) {
    std::string text;
    for (const Segment& s : find_chat_format(name)->render_training(c))
      if (s.trained) text += s.text;
    return text;
  };
  EXPECT_EQ(trained("v1"), " A1</s> A2</s>");
  EXPECT_EQ(trained("llava_llama_2"), " A1 </s> A2 </s>");
  EXPECT_EQ(trained("qwen_2"), "A1<|im_end|>A2<|im_end|>");
  EXPECT_EQ(trained("mpt"), "A1<|im_end|>A2<|im_end|>");
  EXPECT_EQ(trained("llava_v0"), " A1\n### A2\n###");
  EXPECT_EQ(trained("plain"), "A1\nA2\n");
  EXPECT_EQ(trained("gemma"), "A1<end_of_turn>\nA2<end_of_turn>\n");
}

TEST(ChatFormat, Llama3DropsSpaceAroundMessagesAsItsTokenizersTemplate) {
  Conversation c = chat({{"system", " S\n"}, {"user", " Q "}, {"assistant", "\nA  b "}});
  c.messages[1].parts.push_back({Part::Kind::kImage, ""});
  c.inline_media = true;
  const std::string end = "<|end_header_id|>\n\n", start = "<|start_header_id|>";
  EXPECT_EQ(find_chat_format("llava_llama_3")->render_text(c, false),
            "<|begin_of_text|>" + start + "system" + end + "S<|eot_id|>" + start + "user" + end +
                "Q <image><|eot_id|>" + start + "assistant" + end + "A  b<|eot_id|>");
}

TEST(ChatFormat, UnknownNamesGetASuggestion) {
  try {
    find_chat_format("vicuna_v11");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(e.hint().find("vicuna_v1"), std::string::npos) << e.hint();
  }
  const auto names = chat_format_names();
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_EQ(std::adjacent_find(names.begin(), names.end()), names.end());
  for (const std::string& name : names)
    EXPECT_FALSE(find_chat_format(name)->stop_strings().empty()) << name;
}

TEST(ChatFormat, ModelNamesStandForFormats) {
  EXPECT_EQ(chat_format_name_for_model("llava-v1.5-7b"), "llava_v1");
  EXPECT_EQ(chat_format_name_for_model("LLaVA-v1.6-Mistral-7B"), "mistral_instruct");
  EXPECT_EQ(chat_format_name_for_model("llava-v1.6-34b"), "chatml_direct");
  EXPECT_EQ(chat_format_name_for_model("llava-llama-2-13b"), "llava_llama_2");
  EXPECT_EQ(chat_format_name_for_model("llava-mpt"), "mpt");
  EXPECT_EQ(chat_format_name_for_model("llava-7b"), "llava_v0");
}

class PublishedTemplates : public testing::Test {
 protected:
  static Json tokens(const std::string& checkpoint) {
    return {{"bos_token", checkpoint == "llama3" ? "<|begin_of_text|>" : "<s>"},
            {"eos_token", checkpoint == "llama3"            ? "<|eot_id|>"
                          : checkpoint == "llava_onevision" ? "<|im_end|>"
                                                            : "</s>"}};
  }
};

TEST_F(PublishedTemplates, RenderConversationsByteEqual) {
  LLAVA_GOLDEN_OR_SKIP(path, "chat_templates.json");
  const Json golden = Json::parse(read_file(path));
  for (const auto& [name, checkpoint] : golden.items()) {
    const auto format = chat_format_from_jinja(checkpoint["template"], tokens(name));
    for (const Json& c : checkpoint["cases"]) {
      const Conversation conversation = conversation_from_messages(c["messages"]);
      const auto segments = format->render(conversation, c["add_generation_prompt"]);
      std::string text, user;
      for (const Segment& s : segments) {
        text += s.text;
        if (s.user_text && s.turn == 0) user += s.text;
      }
      EXPECT_EQ(text, c["text"]) << name << " " << c["name"];
      const std::string said = conversation.messages[0].text();
      if (name != "llama3") {  // which trims
        EXPECT_EQ(user, said) << name << " " << c["name"];
      }
      const auto images = std::count_if(segments.begin(), segments.end(),
                                        [](const Segment& s) { return s.kind == Segment::Kind::kImage; });
      EXPECT_EQ(static_cast<std::size_t>(images), conversation.num_images()) << name << " " << c["name"];
    }
  }
}

TEST_F(PublishedTemplates, MarkTheAnswers) {
  LLAVA_GOLDEN_OR_SKIP(path, "chat_templates.json");
  const Json golden = Json::parse(read_file(path));
  const Conversation c = chat({{"user", "Q"}, {"assistant", " A <s> "}, {"user", "R"}, {"assistant", "B"}});
  const auto trained = [&](const char* name) {
    std::string text;
    for (const Segment& s :
         chat_format_from_jinja(golden[name]["template"], tokens(name))->render(c, false))
      if (s.trained) text += s.text;
    return text;
  };
  EXPECT_EQ(trained("llava15"), " A <s>  B ");  // {% generation %} blocks: no end token in this template
  EXPECT_EQ(trained("llava_onevision"), "\n A <s> <|im_end|>\nB<|im_end|>");
  EXPECT_EQ(trained("llama3"), "A <s><|eot_id|>B<|eot_id|>");
  EXPECT_EQ(trained("mistral"), "  A <s> </s> B</s>");
  EXPECT_EQ(trained("llava_next_mistral"), "  A <s> </s> B</s>");
}

TEST(JinjaFormat, FindsTextsATemplateTrims) {
  const auto format = chat_format_from_jinja(
      "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}\n{% endfor %}", Json::object());
  const auto segments = format->render(chat({{"user", "\n Q "}, {"assistant", "A"}}), false);
  ASSERT_EQ(segments.size(), 5U);
  EXPECT_EQ(segments[1].text, "Q");
  EXPECT_TRUE(segments[1].user_text);
  EXPECT_EQ(segments[1].turn, 0);
  EXPECT_EQ(trained_text(segments), "A|");
}

TEST(JinjaFormat, FindsTextsATemplateLooksInto) {
  const auto format = chat_format_from_jinja(
      "{% for m in messages %}<{{ m.role }}>{% if m.content[:3] == 'abc' %}!{% endif %}{{ "
      "m.content.split('</think>')[-1] }};{% endfor %}",
      Json::object());
  const auto segments = format->render(chat({{"user", "abcd"}, {"assistant", "x</think>yes"}}), false);
  std::string user;
  for (const Segment& s : segments) user += s.user_text ? s.text + "|" : "";
  EXPECT_EQ(user, "abcd|");  // the rewritten answer is not found
}

TEST(JinjaFormat, TextTemplatesGetImagesInline) {
  const auto format = chat_format_from_jinja(
      "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}", Json::object());
  Conversation c = chat({{"user", "Q"}});
  c.messages[0].parts.push_back({Part::Kind::kImage, "x"});
  const auto segments = format->render(c, false);
  ASSERT_EQ(segments.size(), 4U);
  EXPECT_EQ(format->render_text(c, false), "user: <image>\nQ\n");
  EXPECT_EQ(segments[1].kind, Segment::Kind::kImage);
  EXPECT_TRUE(segments[2].user_text);
}

TEST(JinjaFormat, WrittenImageTokensOfUsersAreNotMedia) {
  const auto format = chat_format_from_jinja(
      "{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}<image>{% else %}{{ p.text "
      "}}{% endif %}{% endfor %}{% endfor %}",
      Json::object());
  Conversation c = chat({{"user", "<image> typed "}});
  c.messages[0].parts.push_back({Part::Kind::kImage, "x"});
  const auto segments = format->render(c, false);
  ASSERT_EQ(segments.size(), 2U);
  EXPECT_TRUE(segments[0].user_text);
  EXPECT_EQ(segments[1].kind, Segment::Kind::kImage);
}

TEST(JinjaFormat, AnImageShownTwiceIsAnError) {
  const auto format = chat_format_from_jinja(
      "{% for m in messages %}{{ m['content'] }}|{{ messages[0]['content'] }}{% endfor %}", Json::object());
  Conversation c;
  c.messages.push_back({"user", {{Part::Kind::kImage, ""}, {Part::Kind::kText, "Q"}}});
  try {
    format->render(c, false);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kFormat);
    EXPECT_NE(std::string(e.what()).find("twice"), std::string::npos) << e.what();
  }
}

TEST(JinjaFormat, APlaceholderStaysWholeWhereTrainingBeginsInsideIt) {
  const auto format =
      chat_format_from_jinja("Q<im{% generation %}age>A{% endgeneration %}", Json::object());
  Conversation c;
  c.messages.push_back({"user", {{Part::Kind::kImage, ""}}});
  const auto segments = format->render(c, false);
  ASSERT_EQ(segments.size(), 3U);
  EXPECT_EQ(segments[1].text, "<image>");
  EXPECT_EQ(segments[1].kind, Segment::Kind::kImage);
  EXPECT_EQ(segments[2].text, "A");
  EXPECT_TRUE(segments[2].trained);
}

TEST(JinjaFormat, BadTemplatesAreErrors) {
  EXPECT_THROW(chat_format_from_jinja("{% if %}", Json::object()), Error);
  EXPECT_THROW(chat_format_from_jinja("x", Json::array()), Error);
  const auto format = chat_format_from_jinja("{{ raise_exception('no') }}", Json::object());
  EXPECT_THROW(format->render(chat({{"user", "Q"}}), true), Error);
}

}  // namespace
}  // namespace llava
