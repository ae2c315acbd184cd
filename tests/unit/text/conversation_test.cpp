#include "text/conversation.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace llava {
namespace {

using enum Part::Kind;

std::string error_of(const std::string& json, bool is_record) {
  try {
    if (is_record)
      conversation_from_llava(Json::parse(json));
    else
      conversation_from_messages(Json::parse(json));
  } catch (const Error& e) {
    EXPECT_TRUE(e.kind() == ErrorKind::kInput || e.kind() == ErrorKind::kFormat) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "no error: " << json;
  return "";
}

TEST(ConversationFromMessages, ReadsTextsAndParts) {
  const Conversation c = conversation_from_messages(Json::parse(R"([
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}, {"type": "image_url", "image_url": {"url": "a.png"}},
                                 {"type": "image", "image": "b.png"}, {"type": "video", "path": "c.mp4"}]},
    {"role": "assistant", "content": "A"}])"));
  ASSERT_EQ(c.messages.size(), 3U);
  EXPECT_EQ(c.messages[0].role, "system");
  EXPECT_EQ(c.messages[1].parts,
            (std::vector<Part>{
                {kImage, ""}, {kText, "Q"}, {kImage, "a.png"}, {kImage, "b.png"}, {kVideo, "c.mp4"}}));
  EXPECT_EQ(c.num_images(), 3U);
  EXPECT_EQ(c.num_media(), 4U);
  EXPECT_EQ(c.messages[1].text(), "Q");
  EXPECT_FALSE(c.inline_media);
}

TEST(ConversationFromMessages, RefusesWhatItCannotRead) {
  for (const char* json :
       {"{}", "[]", "[1]", R"([{"content": "x"}])", R"([{"role": "user"}])",
        R"([{"role": "user", "content": null}])", R"([{"role": "tool", "content": "x"}])",
        R"([{"role": 1, "content": "x"}])", R"([{"role": "user", "content": 1}])",
        R"([{"role": "user", "content": [1]}])", R"([{"role": "user", "content": [{"type": "audio"}]}])",
        R"([{"role": "user", "content": [{"type": "text"}]}])",
        R"([{"role": "user", "content": [{"type": "text", "text": 5}]}])",
        R"([{"role": "user", "content": [{"type": "image", "image": 5}]}])"})
    EXPECT_NE(error_of(json, false), "") << json;
  EXPECT_NE(error_of(R"([{"role": "user", "content": "a"}, {"role": "robot", "content": "x"}])", false)
                .find("messages[1]: role \"robot\""),
            std::string::npos);
}

TEST(ConversationFromLlava, PutsALoneImageFirst) {
  const Conversation c = conversation_from_llava(Json::parse(
      R"({"id": "7", "image": "x.png", "conversations": [{"from": "human", "value": " What colour is it? \n<image> "}, {"from": "gpt", "value": "Red."}]})"));
  EXPECT_EQ(c.messages[0].parts, (std::vector<Part>{{kImage, "x.png"}, {kText, "\nWhat colour is it?"}}));
  EXPECT_TRUE(c.inline_media);
}

TEST(ConversationFromLlava, KeepsSeveralImagesWhereTheyStand) {
  const Json record = Json::parse(
      R"({"image": ["a", "b"], "conversations": [{"from": "human", "value": "First <image> then <image>."}, {"from": "gpt", "value": "-"}]})");
  EXPECT_EQ(conversation_from_llava(record).messages[0].parts,
            (std::vector<Part>{
                {kText, "First "}, {kImage, "a"}, {kText, " then "}, {kImage, "b"}, {kText, "."}}));
  EXPECT_EQ(conversation_from_llava(record, {.placement = ImagePlacement::kAllFirst}).messages[0].parts,
            (std::vector<Part>{{kImage, "a"}, {kText, "\nFirst  then ."}}));
}

TEST(ConversationFromLlava, ReadsOtherSpellings) {
  const Conversation c = conversation_from_llava(Json::parse(
      R"({"video": "v.mp4", "conversations": [{"from": "system", "value": "S"}, {"role": "user", "content": "<video>\nQ"}, {"role": "assistant", "content": "A"}]})"));
  EXPECT_EQ(c.messages[0].role, "system");
  EXPECT_EQ(c.messages[1].parts, (std::vector<Part>{{kVideo, "v.mp4"}, {kText, "\nQ"}}));
}

TEST(ConversationFromLlava, DropsAnswersBeforeTheFirstQuestion) {
  const Json record = Json::parse(
      R"({"conversations": [{"from": "gpt", "value": "I begin."}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]})");
  EXPECT_EQ(conversation_from_llava(record).messages.size(), 2U);
  EXPECT_EQ(conversation_from_llava(record, {.drop_leading_answers = false}).messages.size(), 3U);
}

TEST(ConversationFromLlava, ErrorsNameTheRecord) {
  const std::string turns = R"([{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}])";
  const std::string record = R"({"id": "r1", "conversations": )";
  EXPECT_NE(error_of(record + R"([{"from": "robot", "value": "Q"}]})", true).find("record r1"),
            std::string::npos);
  EXPECT_NE(
      error_of(record + R"([{"from": "human", "value": "Q"}, {"from": "human", "value": "Q"}]})", true)
          .find("in a row"),
      std::string::npos);
  EXPECT_NE(
      error_of(record + R"([{"from": "human", "value": "<image>Q"}, {"from": "gpt", "value": "A"}]})", true)
          .find("1 <image>, the record 0"),
      std::string::npos);
  EXPECT_NE(error_of(R"({"id": 3, "image": "x", "conversations": )" + turns + "}", true)
                .find("record 3: the text has 0 <image>"),
            std::string::npos);
  for (const std::string& json :
       {std::string("[]"), std::string("{}"), record + "[]}", record + "5}", record + "[5]}",
        record + R"([{"from": "human"}]})", record + R"([{"from": "gpt", "value": "A"}]})",
        record + R"([{"from": "human", "value": 5}]})",
        record + R"([{"from": "human", "value": "a"}, {"from": "system", "value": "a"}]})",
        R"({"image": 5, "conversations": )" + turns + "}"})
    EXPECT_NE(error_of(json, true), "") << json;
}

TEST(InlineMedia, SeparatesMediaAndTextByLineBreaks) {
  const Message one{"user", {{kText, "Q"}, {kImage, "a"}}};
  EXPECT_EQ(with_inline_media(one).parts, (std::vector<Part>{{kImage, "a"}, {kText, "\nQ"}}));
  const Message two{"user", {{kImage, "a"}, {kImage, "b"}, {kText, "Q"}}};
  EXPECT_EQ(with_inline_media(two).parts,
            (std::vector<Part>{{kImage, "a"}, {kText, "\n"}, {kImage, "b"}, {kText, "\n"}, {kText, "Q"}}));
  EXPECT_EQ(with_separate_media(with_inline_media(one)).parts,
            (std::vector<Part>{{kImage, "a"}, {kText, "Q"}}));
}

}  // namespace
}  // namespace llava
