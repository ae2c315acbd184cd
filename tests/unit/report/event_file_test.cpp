#include "report/event_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/files.h"
#include "report/json_lines.h"
#include "support/golden.h"

namespace llava {
namespace {

TEST(Crc32c, EqualsTheVectorsOfRfc3720) {
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43U);
  std::string ascending;
  for (int i = 0; i < 32; ++i) ascending += static_cast<char>(i);
  EXPECT_EQ(crc32c(ascending), 0x46DD794EU);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
}

/// events.bin is what tensorboard's own protobuf classes and record writer make of the same numbers
/// (tools/reference/make_event_golden.py).
TEST(EventFile, HasTheBytesOfTensorBoardsOwnWriter) {
  LLAVA_GOLDEN_OR_SKIP(golden, "events/events.bin");
  std::string bytes = tf_record(version_event(1700000000.25)) + tf_record(restart_event(1700000000.5, 300));
  bytes +=
      tf_record(scalar_event(1700000001.0, 0, {{"train/loss", 2.5}, {"train/lr/^mm_projector", 1e-3}}));
  bytes += tf_record(scalar_event(1700000002.0, 300, {{"train/loss", 0.1}}));
  std::vector<std::pair<std::string, double>> many;
  for (int i = 0; i < 40; ++i) many.emplace_back("train/extra/" + std::to_string(i), i * i - 7.5);
  bytes += tf_record(scalar_event(1700000003.0, 123456789012, many));
  EXPECT_EQ(bytes, read_file(golden));
}

TEST(EventFile, StartsWithItsVersionAndIsWrittenThroughAtOnce) {
  const auto folder = test::scratch_dir("events");
  EventFile first(folder, 0), second(folder, 7);
  EXPECT_NE(first.path(), second.path());
  const std::string before = read_file(first.path());
  EXPECT_NE(before.find("brain.Event:2"), std::string::npos);
  first.write(3, {{"a", 1.0}});
  EXPECT_GT(read_file(first.path()).size(), before.size());
  EXPECT_GT(read_file(second.path()).size(), before.size()) << "a restart is noted";
}

TEST(JsonLines, KeepsLinesBeforeTheFirstStepAndReplacesInvalidText) {
  const auto file = test::scratch_dir("lines") / "x.jsonl";
  JsonLines(file, 0).write({{"step", 1}});
  std::ofstream(file, std::ios::app) << "{\"step\": 2}\nnot json\n{\"step\": 1.5}\n{\"st";
  JsonLines lines(file, 2);
  lines.write({{"step", 2}, {"text", "\xFF"}});
  EXPECT_EQ(read_file(file), "{\"step\":1}\n{\"step\":2,\"text\":\"\xEF\xBF\xBD\"}\n");
}

}  // namespace
}  // namespace llava
