#include "data/validate.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/files.h"
#include "checkpoint/checkpoint.h"
#include "support/golden.h"

namespace llava {
namespace {

namespace fs = std::filesystem;

/// The tiny golden model's way of preparing samples, over `records` (one JSON object each) beside the
/// golden photos.
struct Fixture {
  fs::path folder;
  std::unique_ptr<Dataset> dataset;
  SamplePreparer preparer;
};

Fixture make_fixture(const fs::path& golden, const std::string& name,
                     const std::vector<std::string>& records) {
  Fixture f;
  f.folder = test::scratch_dir(name);
  std::ofstream file(f.folder / "a.jsonl");
  for (const std::string& record : records) file << record << "\n";
  file.close();
  std::ofstream(f.folder / "broken.png") << "no picture";
  std::string truncated = read_file(golden / "train/images/0000.png");
  std::ofstream(f.folder / "truncated.png") << truncated.substr(0, truncated.size() / 2);
  fs::create_symlink(fs::absolute(golden / "train/images"), f.folder / "images");
  f.dataset = std::make_unique<Dataset>(
      std::vector<DataSourceConfig>{{(f.folder / "a.jsonl").string(), "", 1.0, 0}});
  const CheckpointInfo checkpoint = read_checkpoint(golden / "checkpoints/llava15", ReadOptions{});
  SamplePreparer& p = f.preparer;
  p.dataset = f.dataset.get();
  p.format = find_chat_format("user_assistant");
  p.tokenizer = checkpoint.tokenizer;
  p.model = checkpoint.model;
  p.policy = checkpoint.image_policy.value();
  p.prompt.mode = PromptMode::kTrain;
  p.prompt.tokenisation = ImageTokenisation::kSegments;
  p.prompt.max_length = 200;
  return f;
}

std::string ask(const std::string& id, const std::string& image, const std::string& question,
                const std::string& answer) {
  Json record = {
      {"id", id},
      {"conversations", {{{"from", "human"}, {"value", question}}, {{"from", "gpt"}, {"value", answer}}}}};
  if (!image.empty()) record["image"] = image;
  return record.dump();
}

std::vector<std::string> defective_records() {
  std::string words;
  for (int i = 0; i < 400; ++i) words += "word ";
  return {
      ask("good", "images/0000.png", "<image>\nWhat?", "A cat."),
      ask("text", "", "Hello", "Hi."),
      "{\"id\": \"torn\", ",
      R"({"id": "none"})",
      R"({"id": "order", "conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}, {"from": "gpt", "value": "c"}]})",
      R"({"id": "who", "conversations": [{"from": "robot", "value": "a"}]})",
      ask("empty", "images/0000.png", "<image>\nWhat?", " \n"),
      ask("marks", "images/0000.png", "What?", "A cat."),
      ask("marks2", "images/0000.png", "<image><image>What?", "A cat."),
      ask("missing", "images/nowhere.png", "<image>\nWhat?", "A cat."),
      ask("broken", "broken.png", "<image>\nWhat?", "A cat."),
      ask("truncated", "truncated.png", "<image>\nWhat?", "A cat."),
      ask("long", "images/0000.png", "<image>\n" + words, "A cat."),
      R"({"id": "unanswered", "conversations": [{"from": "human", "value": "a"}]})",
  };
}

std::vector<std::string> ids_of(const DataReport& report, Defect defect) {
  std::vector<std::string> ids;
  for (const DefectiveSample& sample : report.first[static_cast<std::size_t>(defect)])
    ids.push_back(sample.id);
  return ids;
}

TEST(ValidateData, FindsEveryDefectByItsId) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const fs::path golden = train.parent_path();
  const Fixture f = make_fixture(golden, "validate", defective_records());
  for (const std::int64_t threads : {1, 3}) {
    const DataReport report = validate_data(f.preparer, {.threads = threads});
    using Ids = std::vector<std::string>;
    EXPECT_EQ(ids_of(report, Defect::kBadRecord), (Ids{"", "none"}));
    EXPECT_EQ(ids_of(report, Defect::kRoleOrder), (Ids{"order", "who"}));
    EXPECT_EQ(ids_of(report, Defect::kEmptyAnswer), (Ids{"empty", "unanswered"}));
    EXPECT_EQ(ids_of(report, Defect::kPlaceholderCount), (Ids{"marks", "marks2"}));
    EXPECT_EQ(ids_of(report, Defect::kMissingImage), Ids{"missing"});
    EXPECT_EQ(ids_of(report, Defect::kUnreadableImage), Ids{"broken"});
    EXPECT_EQ(ids_of(report, Defect::kOverLong), Ids{"long"});
    EXPECT_EQ(report.samples, 14u);
    EXPECT_EQ(report.defective(), 11u);
  }
  const DataReport decoded = validate_data(f.preparer, {.listed = 1, .decode_images = true});
  EXPECT_EQ(decoded.counts[static_cast<std::size_t>(Defect::kUnreadableImage)], 2u);
  EXPECT_EQ(ids_of(decoded, Defect::kUnreadableImage), std::vector<std::string>{"broken"});
  EXPECT_EQ(decoded.to_json()["defects"]["unreadable_image"]["count"], 2);
  EXPECT_NE(decoded.to_text().find("missing_image: 1"), std::string::npos);
}

TEST(ValidateData, AgreesWithWhatTrainingCanLoad) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const fs::path golden = train.parent_path();
  const Fixture f = make_fixture(golden, "validate_agrees", defective_records());
  for (std::size_t i = 0; i < f.dataset->size(); ++i) {
    Defect defect{};
    std::string why, id;
    const bool usable = check_sample(f.preparer, i, true, defect, why, id);
    const auto prepared = try_outcome([&] { return f.preparer(i); });
    if (usable) {
      EXPECT_TRUE(prepared.ok()) << id;
    } else if (defect != Defect::kEmptyAnswer) {
      EXPECT_FALSE(prepared.ok()) << id << ": " << why;
    }
  }
}

TEST(PrepareFilm, ShowsTheFramesThatChatShows) {
  LLAVA_GOLDEN_OR_SKIP(film, "video/constant.mp4");
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const fs::path golden = train.parent_path();
  const std::string record = Json{
      {"video", fs::absolute(film).string()},
      {"conversations",
       {{{"from", "human"}, {"value", "<video>\nWhat happens?"}},
        {{"from", "gpt"},
         {"value", "Much."}}}}}.dump();
  Fixture f = make_fixture(golden, "film", {record});
  f.preparer.film.num_frames = 3;
  f.preparer.prompt.max_length = 0;
  const PreparedSample together = f.preparer(0);
  ASSERT_EQ(together.media.size(), 1u);
  EXPECT_TRUE(together.media[0].plan.layout.video);
  EXPECT_EQ(together.media[0].pixels.size(),
            static_cast<std::size_t>(3 * 3 * together.media[0].plan.tile_height *
                                     together.media[0].plan.tile_width));
  ASSERT_EQ(together.prompt.media_spans.size(), 1u);
  EXPECT_EQ(together.prompt.media_spans[0].len,
            static_cast<std::size_t>(together.media[0].plan.token_count));
  f.preparer.model.media.frame_label = "Frame {}:";
  const PreparedSample apart = f.preparer(0);
  EXPECT_EQ(apart.media.size(), 3u);
  EXPECT_EQ(apart.prompt.media_spans.size(), 3u);
  std::vector<float> joined;
  for (const PreparedMedia& frame : apart.media)
    joined.insert(joined.end(), frame.pixels.begin(), frame.pixels.end());
  EXPECT_EQ(joined, together.media[0].pixels);
  EXPECT_EQ(validate_data(f.preparer, {}).defective(), 0u);
}

TEST(ShowFilms, NamesTimesAndFramesInTheText) {
  Conversation conversation{{{"user", {{Part::Kind::kVideo, ""}, {Part::Kind::kText, "\nWhat?"}}}}, true};
  const FramePick pick{{0, 30}, {0.0, 1.0}, 2.0};
  MediaConfig media;
  media.time_instruction = true;
  Conversation timed = conversation;
  show_films(timed, {pick}, media);
  EXPECT_EQ(timed.messages[0].parts[1].text, "\n" + time_instruction(pick) + "\nWhat?");
  media.time_instruction = false;
  media.frame_label = "Frame {}:";
  show_films(conversation, {pick}, media);
  ASSERT_EQ(conversation.messages[0].parts.size(), 5u);
  EXPECT_EQ(conversation.messages[0].parts[0].text, "Frame 1:\n");
  EXPECT_EQ(conversation.messages[0].parts[2].text, "\nFrame 2:\n");
  EXPECT_EQ(conversation.messages[0].parts[4].text, "\nWhat?");
}

}  // namespace
}  // namespace llava
