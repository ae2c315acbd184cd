#include "data/llava_sampler.h"

#include <gtest/gtest.h>

#include <fstream>
#include <numeric>

#include "base/files.h"
#include "data/loader.h"
#include "data/record_facts.h"
#include "data/sampler.h"
#include "support/golden.h"

namespace llava {
namespace {

using Order = std::vector<std::uint32_t>;

TEST(TorchRandom, PermutesAsTorchDoes) {
  LLAVA_GOLDEN_OR_SKIP(path, "samplers/llava_order.json");
  const Json golden = read_json_file(path);
  ASSERT_EQ(golden["randperm"].size(), 3u);
  for (const Json& row : golden["randperm"])
    EXPECT_EQ(TorchRandom(row["seed"].get<std::uint64_t>()).permutation(row["n"]),
              row["order"].get<Order>())
        << row["seed"];
  EXPECT_TRUE(TorchRandom(0).permutation(0).empty());
  EXPECT_THROW(TorchRandom(0).permutation(std::size_t{1} << 28), Error);
}

TEST(LlavaOrder, EqualsTheOriginalsForSeedsAndWorlds) {
  LLAVA_GOLDEN_OR_SKIP(path, "samplers/llava_order.json");
  const Json golden = read_json_file(path);
  std::vector<std::int32_t> lengths, mixed = golden["mixed"];
  for (const std::int32_t length : mixed) lengths.push_back(std::abs(length));
  ASSERT_EQ(golden["cases"].size(), 27u);
  for (const Json& row : golden["cases"]) {
    TorchRandom random(row["seed"].get<std::uint64_t>());
    const std::size_t batch = row["batch"], world = row["world"];
    const std::string rule = row["rule"];
    const Order order = rule == "length" ? llava_length_order(lengths, batch, world, random)
                        : rule == "text" ? llava_modality_order(golden["text"], batch, world, random)
                                         : llava_modality_order(mixed, batch, world, random);
    EXPECT_EQ(order, row["order"].get<Order>()) << row["seed"] << " " << rule << " " << world;
  }
}

TEST(RecordFacts, CountWordsAsPythonSplits) {
  LLAVA_GOLDEN_OR_SKIP(path, "samplers/llava_order.json");
  for (const Json& row : read_json_file(path)["words"]) {
    const std::string text = row["text"];
    EXPECT_EQ(count_words(text), row["words"].get<std::int64_t>()) << row;
    const Json record = {{"image", nullptr},
                         {"x", {{"value", "no word"}, {"y", {"]", "}"}}}},
                         {"conversations", {{{"from", "human"}, {"value", text}}}}};
    for (const bool ascii : {true, false})
      EXPECT_EQ(scan_record(record.dump(-1, ' ', ascii)),
                (RecordFacts{row["words"].get<std::int32_t>(), false}))
          << row;
    EXPECT_EQ(record_facts(record), scan_record(record.dump(2)));
  }
}

TEST(RecordFacts, SeeMediaAndSurviveWhatIsNoRecord) {
  EXPECT_TRUE(scan_record(R"({"image": "a"})").has_media);
  EXPECT_TRUE(scan_record(R"({"a\"b\\": [1, {"c": "}"}], "video": "v.mp4", "image": ""})").has_media);
  EXPECT_FALSE(scan_record(R"({"image": "", "images": null, "nested": {"image": "a"}})").has_media);
  const std::string whole =
      R"({"id": 1, "image": ["a", "b"], "conversations": [{"from": "human", "value": "a \"b\" \u0020c"}, 5, {"value": 7}]})";
  EXPECT_EQ(scan_record(whole), (RecordFacts{3, true}));
  for (std::size_t n = 0; n < whole.size(); ++n) scan_record(std::string_view(whole).substr(0, n));
  for (const char* text :
       {"17", "[]", "{\"conversations\": \"x\"}", "{,}", "{\"a\"}", "{\"a\":}", "\"", "{\"a\": \"\\"})
    scan_record(text);
}

Dataset lengths_dataset(const Json& mixed) {
  const auto folder = test::scratch_dir("llava_lengths");
  std::ofstream file(folder / "a.jsonl");
  for (const std::int32_t length : mixed) {
    std::string text;
    for (int w = 0; w < std::abs(length); ++w) text += "w ";
    Json record = {{"conversations", {{{"from", "human"}, {"value", text}}}}};
    if (length > 0) record["image"] = "x.png";
    file << record.dump() << "\n";
  }
  file.close();
  return Dataset({{(folder / "a.jsonl").string(), "", 1.0, 0}});
}

TEST(SampleOrder, FollowsLlavaOnADataSetWhereItsProcessesTimesItsBatchesAreTheStep) {
  LLAVA_GOLDEN_OR_SKIP(path, "samplers/llava_order.json");
  const Json golden = read_json_file(path);
  const Dataset data = lengths_dataset(golden["mixed"]);
  for (const Json& row : golden["cases"]) {
    if (row["rule"] != "modality") continue;
    const SampleOrder order(data, {SamplerKind::kLlavaModality, 4, row["world"].get<std::int64_t>(),
                                   row["seed"].get<std::uint64_t>()});
    EXPECT_EQ(order.epoch(0), row["order"].get<Order>());
  }
  const SampleOrder order(data, {SamplerKind::kLlavaLength, 4, 2, 1});
  EXPECT_NE(order.epoch(0), order.epoch(1));
}

TEST(Loader, PartsOfAStepAreItsSamplesInOrderAndDifferByOneAtMost) {
  for (const std::size_t count : {0U, 1U, 5U, 8U, 13U})
    for (const std::int64_t world : {1, 2, 3, 8}) {
      std::vector<std::size_t> joined;
      for (std::int64_t rank = 0; rank < world; ++rank) {
        const auto part = part_of(count, rank, world);
        EXPECT_LE(part.size(), count / static_cast<std::size_t>(world) + 1);
        EXPECT_GE(part.size(), count / static_cast<std::size_t>(world));
        joined.insert(joined.end(), part.begin(), part.end());
      }
      std::vector<std::size_t> all(count);
      std::iota(all.begin(), all.end(), std::size_t{0});
      EXPECT_EQ(joined, all);
    }
}

}  // namespace
}  // namespace llava
