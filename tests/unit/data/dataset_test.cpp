#include "data/dataset.h"

#include <gtest/gtest.h>

#include <fstream>

#include "data/record_file.h"
#include "support/errors.h"
#include "support/golden.h"

namespace llava {
namespace {

std::filesystem::path write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
  return path;
}

Json record(const std::string& text) { return Json::parse(text); }

using test::error_of;

TEST(RecordFile, FindsTheItemsOfAListAndLines) {
  const auto folder = test::scratch_dir("record_file");
  const RecordFile list(
      write(folder / "a.json", "\xEF\xBB\xBF [ {\"a\": \"],}\\\"[\"}, {\"b\": [1, {\"c\": 2}]} ,{}\n] \n"));
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list.record(0)["a"], "],}\"[");
  EXPECT_EQ(list.record(1)["b"][1]["c"], 2);
  const RecordFile lines(write(folder / "b.jsonl", "{\"a\": 1}\r\n\n  {\"a\": 2}"));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines.record(1)["a"], 2);
}

TEST(RecordFile, NamesFileAndRecordOfWhatIsBroken) {
  const auto folder = test::scratch_dir("record_file_bad");
  EXPECT_THROW(RecordFile(folder / "missing.json"), Error);
  for (const char* text : {"", "  \n", "hello", "[{\"a\": 1}", "[{}] x", "[\"abc"})
    EXPECT_THROW(RecordFile(write(folder / "bad.json", text)), Error) << text;
  const RecordFile file(write(folder / "c.json", "[{\"a\": }, 5, {\"a\": 1}]"));
  ASSERT_EQ(file.size(), 3u);
  EXPECT_NE(error_of([&] { file.record(0); }).find("c.json: record 0"), std::string::npos);
  EXPECT_THROW(file.record(1), Error);
  EXPECT_EQ(file.record(2)["a"], 1);
}

TEST(SampleFromRecord, ReadsImagesBesideTheRoot) {
  const Sample one = sample_from_record(record(R"({"id": 7, "image": "a/b.png", "conversations": [
      {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]})"),
                                        "/data", TurnMode::kConversation);
  EXPECT_EQ(one.id, "7");
  EXPECT_EQ(one.images, std::vector<MediaRef>{std::filesystem::path("/data/a/b.png")});
  EXPECT_EQ(one.conversation.messages.size(), 2u);
  const Sample absolute = sample_from_record(record(R"({"image": ["/x.png", "y.png"], "conversations": [
      {"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "A"}]})"),
                                             "/data", TurnMode::kConversation);
  EXPECT_EQ(absolute.images,
            (std::vector<MediaRef>{std::filesystem::path("/x.png"), std::filesystem::path("/data/y.png")}));
}

TEST(SampleFromRecord, RepeatsTheQuestionForAlternativeAnswers) {
  const Json json =
      record(R"({"image": "a.png", "conversations": [{"from": "human", "value": "<image>\nDescribe."},
      {"from": "gpt", "value": "One."}, {"from": "gpt", "value": "Two."}]})");
  const Sample sample = sample_from_record(json, "", TurnMode::kIndependent);
  ASSERT_EQ(sample.conversation.messages.size(), 4u);
  EXPECT_EQ(sample.conversation.num_images(), 1u);
  EXPECT_EQ(sample.conversation.messages[2].text(), "Describe.");
  EXPECT_EQ(sample.conversation.messages[3].text(), "Two.");
}

TEST(SampleFromRecord, RefusesWhatItCannotUse) {
  const auto load = [](const std::string& text) {
    return error_of([&] { sample_from_record(record(text), "", TurnMode::kConversation); });
  };
  EXPECT_NE(load(R"({"id": "1"})"), "");
  EXPECT_NE(load(R"({"image": 5, "conversations": []})"), "");
  EXPECT_NE(load(R"({"video": "a.mp4", "conversations": []})"), "");
  EXPECT_NE(
      load(
          R"({"video": "a.mp4", "conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]})"),
      "");
  EXPECT_NE(
      load(R"({"conversations": [{"from": "human", "value": "<video>x"}, {"from": "gpt", "value": "y"}]})"),
      "");
  EXPECT_NE(load(R"({"image": ["a", "b"], "conversations": [{"from": "human", "value": "<image>x"},
      {"from": "gpt", "value": "y"}]})"),
            "");
}

TEST(Dataset, LeavesOutAMissingFileOnlyWhereItIsOptional) {
  const auto folder = test::scratch_dir("optional");
  write(folder / "a.json",
        R"([{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}])");
  const DataSourceConfig here{(folder / "a.json").string(), "", 1.0, 0, true};
  const DataSourceConfig nowhere{(folder / "b.json").string(), "", 1.0, 0, true};
  const Dataset some({nowhere, here});
  ASSERT_EQ(some.size(), 1u);
  EXPECT_EQ(some.sources().at(some.info(0).source).path, here.path);
  EXPECT_EQ(some.load(0, TurnMode::kConversation).conversation.messages.size(), 2u);
  EXPECT_THROW(Dataset({nowhere}), Error);
  EXPECT_THROW(Dataset({here, {nowhere.path, "", 1.0, 0, false}}), Error);
}

TEST(Dataset, CountsWordsAndKeepsBrokenRecordsAsErrors) {
  const auto folder = test::scratch_dir("dataset");
  write(folder / "a.json",
        R"([{"image": "i.png", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"},
      {"from": "gpt", "value": "A dog"}]}, 17, {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}])");
  const Dataset all({{(folder / "a.json").string(), "", 1.0, 0}});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all.info(0).length, 6);
  EXPECT_TRUE(all.info(0).has_media);
  EXPECT_FALSE(all.info(2).has_media);
  EXPECT_EQ(all.load(0, TurnMode::kConversation).images[0].path, folder / "i.png");
  EXPECT_THROW(all.load(1, TurnMode::kConversation), Error);
  EXPECT_EQ(Dataset({{(folder / "a.json").string(), "", 1.0, 2}}).size(), 2u);
  write(folder / "b.json", "[]");
  EXPECT_THROW(Dataset({{(folder / "b.json").string(), "", 1.0, 0}}), Error);
}

}  // namespace
}  // namespace llava
