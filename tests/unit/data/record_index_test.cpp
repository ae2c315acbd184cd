#include "data/record_index.h"

#include <gtest/gtest.h>

#include <fstream>

#include "data/record_file.h"
#include "support/golden.h"

namespace llava {
namespace {

namespace fs = std::filesystem;

/// About 5 MB of records of all sizes, as lines or as a list.
void write_records(const fs::path& path, bool list, int first_word = 0) {
  std::ofstream file(path);
  if (list) file << "[";
  for (int i = 0; i < 9000; ++i) {
    std::string text;
    for (int w = first_word; w < i * 31 % 211; ++w) text += "wo\\rd \"]}\n";
    const Json record = {{"id", i},
                         {i % 3 ? "image" : "other", "a.png"},
                         {"conversations", {{{"from", "human"}, {"value", text}}}}};
    file << (list && i > 0 ? "," : "") << record.dump(list && i % 2 ? 1 : -1) << "\n";
    if (!list && i % 1000 == 0) file << "  \r\n";
  }
  if (list) file << "]\n";
}

std::vector<RecordFacts> facts_of(const RecordFile& file) {
  std::vector<RecordFacts> facts;
  for (std::size_t i = 0; i < file.size(); ++i) facts.push_back(file.facts(i));
  return facts;
}

TEST(RecordIndex, IsKeptAndUsedAgainUntilTheFileChanges) {
  const auto folder = test::scratch_dir("record_index");
  const fs::path data = folder / "a.jsonl", kept = folder / "run";
  write_records(data, false);
  ASSERT_GT(fs::file_size(data), std::uintmax_t{4} << 20);
  const RecordFile built(data, kept);
  ASSERT_EQ(built.size(), 9000u);
  std::vector<fs::path> stored;
  for (const auto& entry : fs::directory_iterator(kept))
    if (entry.path().extension() == ".bin") stored.push_back(entry.path());
  ASSERT_EQ(stored.size(), 1u);
  EXPECT_LT(fs::file_size(stored[0]), 9000u * 7);
  const auto written = fs::last_write_time(stored[0]);
  const RecordFile again(data, kept);
  EXPECT_EQ(fs::last_write_time(stored[0]), written);
  EXPECT_EQ(facts_of(again), facts_of(built));
  for (const std::size_t i : {0, 1, 4711, 8999}) {
    EXPECT_EQ(again.record(i)["id"], i);
    EXPECT_EQ(again.facts(i), record_facts(again.record(i)));
  }
  { std::fstream(stored[0], std::ios::in | std::ios::out | std::ios::binary).seekp(5000).put('x'); }
  EXPECT_EQ(facts_of(RecordFile(data, kept)), facts_of(built));  // damaged: built anew
  write_records(data, false, 1);
  EXPECT_NE(facts_of(RecordFile(data, kept)), facts_of(built));
}

TEST(RecordIndex, OfAListEqualsThatOfLines) {
  const auto folder = test::scratch_dir("record_index_list");
  write_records(folder / "a.jsonl", false);
  write_records(folder / "a.json", true);
  const RecordFile lines(folder / "a.jsonl"), list(folder / "a.json");
  EXPECT_EQ(facts_of(lines), facts_of(list));
  EXPECT_EQ(lines.record(8123), list.record(8123));
}

TEST(RecordFile, SaysThatAFileHasBecomeShorter) {
  const auto folder = test::scratch_dir("record_index_cut");
  write_records(folder / "a.jsonl", false);
  const RecordFile file(folder / "a.jsonl");
  fs::resize_file(folder / "a.jsonl", 1000);
  EXPECT_THROW(file.record(8000), Error);
}

}  // namespace
}  // namespace llava
