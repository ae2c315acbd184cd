#include "data/preference_record.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "data/dataset.h"

namespace llava {
namespace {

Sample pair_of(const std::string& text) {
  return preference_from_record(Json::parse(text), "/data", RecordKind::kPair);
}

std::string why_not(const std::string& text, RecordKind kind) {
  try {
    preference_from_record(Json::parse(text), "/data", kind);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInput) << e.what();
    return e.what();
  }
  return "";
}

std::string last_text(const Conversation& conversation) { return conversation.messages.back().text(); }

/// The same pair in every shape that is read.
class PairShapes : public testing::TestWithParam<const char*> {};

TEST_P(PairShapes, AllMeanTheSamePair) {
  const Sample sample = pair_of(GetParam());
  EXPECT_EQ(sample.images, std::vector<MediaRef>{std::filesystem::path("/data/a.jpg")});
  ASSERT_EQ(sample.conversation.messages.size(), 2u);
  ASSERT_EQ(sample.rejected.messages.size(), 2u);
  EXPECT_EQ(sample.conversation.messages[0], sample.rejected.messages[0]);
  EXPECT_EQ(sample.conversation.num_images(), 1u);
  EXPECT_EQ(sample.conversation.messages[0].text(), "\nWhat is it?");
  EXPECT_EQ(last_text(sample.conversation), "A cat.");
  EXPECT_EQ(last_text(sample.rejected), "A dog.");
}

INSTANTIATE_TEST_SUITE_P(
    Records, PairShapes,
    testing::Values(
        R"({"image": "a.jpg", "prompt": "<image>\nWhat is it?", "chosen": "A cat.", "rejected": "A dog."})",
        R"({"image": "a.jpg", "prompt": "What is it?", "chosen": "A cat.", "rejected": "A dog."})",
        R"({"image": "a.jpg", "question": "What is it?", "chosen": "A cat.", "rejected": "A dog."})",
        R"({"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}],
            "chosen": {"from": "gpt", "value": "A cat."}, "rejected": {"from": "gpt", "value": "A dog."}})",
        R"({"image": "a.jpg", "text": "{\"question\": \"What is it?\", \"chosen\": \"A cat.\", \"rejected\": \"A dog.\"}"})",
        R"({"image": "a.jpg", "conversations": [{"from": "human", "value": "What is it?"}], "preference": 2,
            "output_1": {"from": "llava", "value": "A dog."}, "output_2": {"from": "llava", "value": "A cat."}})",
        R"({"images": ["a.jpg"], "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}],
            "chosen": [{"role": "assistant", "content": "A cat."}], "rejected": [{"role": "assistant", "content": "A dog."}]})",
        R"({"images": ["a.jpg"], "chosen": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A cat."}],
            "rejected": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A dog."}]})"));

TEST(PreferenceRecord, EarlierTurnsBelongToThePrompt) {
  const Sample sample =
      pair_of(R"({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"},
      {"from": "human", "value": "Bye?"}], "chosen": "Bye.", "rejected": "No."})");
  EXPECT_TRUE(sample.images.empty());
  EXPECT_EQ(sample.conversation.messages.size(), 4u);
  EXPECT_EQ(last_text(sample.rejected), "No.");
}

TEST(PreferenceRecord, NamesWhatIsMissingOrWrong) {
  const auto expect = [](RecordKind kind, const char* record, const char* word) {
    EXPECT_NE(why_not(record, kind).find(word), std::string::npos)
        << record << " -> " << why_not(record, kind);
  };
  expect(RecordKind::kPair, R"({"prompt": "Q", "chosen": "A"})", "rejected");
  expect(RecordKind::kPair, R"({"prompt": "Q", "chosen": " \n", "rejected": "B"})", "empty");
  expect(RecordKind::kPair, R"({"prompt": "Q", "chosen": "A", "rejected": "A"})", "same");
  expect(RecordKind::kPair, R"({"chosen": "A", "rejected": "B"})", "no prompt");
  expect(RecordKind::kPair, R"({"prompt": "Q", "chosen": 5, "rejected": "B"})", "chosen");
  expect(RecordKind::kPair,
         R"({"prompt": "<image> <image>", "image": "a.jpg", "chosen": "A", "rejected": "B"})", "image");
  expect(RecordKind::kPair, R"({"prompt": "Q", "output_1": "A", "output_2": "B"})", "preference");
  expect(
      RecordKind::kPair,
      R"({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "chosen": "A", "rejected": "B"})",
      "question");
  expect(RecordKind::kPair,
         R"({"prompt": [{"role": "wizard", "content": "Q"}], "chosen": "A", "rejected": "B"})", "wizard");
  expect(RecordKind::kPair,
         R"({"prompt": [{"role": "user", "content": ["x"]}], "chosen": "A", "rejected": "B"})", "part");
  expect(RecordKind::kPair, R"({"prompt": [{"role": 3, "content": "x"}], "chosen": "A", "rejected": "B"})",
         "role");
  expect(RecordKind::kPair, R"({"prompt": 7, "chosen": "A", "rejected": "B"})", "prompt");
  expect(RecordKind::kLabelled, R"({"prompt": "Q", "completion": "A"})", "label");
  expect(RecordKind::kLabelled, R"({"prompt": "Q", "completion": "A", "label": "good"})", "label");
  expect(RecordKind::kLabelled, R"({"prompt": "Q", "label": true})", "completion");
  expect(RecordKind::kPrompt, R"({"solution": "A"})", "no prompt");
}

TEST(PreferenceRecord, LabelsAndRightAnswersAreRead) {
  const auto read = [](const char* text, RecordKind kind) {
    return preference_from_record(Json::parse(text), "/data", kind);
  };
  EXPECT_TRUE(
      read(R"({"prompt": "Q", "completion": "A", "label": true})", RecordKind::kLabelled).desirable);
  EXPECT_FALSE(read(R"({"prompt": "Q", "completion": "A", "label": 0})", RecordKind::kLabelled).desirable);
  for (const char* text :
       {R"({"prompt": "Q", "solution": "A"})", R"({"question": "Q", "answer": "A"})",
        R"({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]})"}) {
    const Sample sample = read(text, RecordKind::kPrompt);
    EXPECT_EQ(sample.answer, "A") << text;
    EXPECT_EQ(sample.conversation.messages.size(), 1u) << text;
  }
  EXPECT_EQ(read(R"({"prompt": "Q"})", RecordKind::kPrompt).answer, "");
}

}  // namespace
}  // namespace llava
