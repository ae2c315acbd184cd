#include <gtest/gtest.h>

#include <fstream>

#include "base/files.h"
#include "base/rng.h"
#include "data/dataset.h"
#include "data/open_source.h"
#include "data/prepare.h"
#include "support/golden.h"

namespace llava {
namespace {

TEST(ParquetSource, ReadsConversationsAndImageBytes) {
  LLAVA_GOLDEN_OR_SKIP(path, "parquet/conversations.parquet");
  LLAVA_GOLDEN_OR_SKIP(expected_path, "parquet/expected.json");
  const Json expected = read_json_file(expected_path);
  const auto rows = open_source(path.string(), "");
  ASSERT_EQ(rows->size(), 7u);
  for (const std::size_t i : {6, 0, 3, 2, 5}) {
    EXPECT_EQ(rows->facts(i), (RecordFacts{expected["words"][i].get<std::int32_t>(), i != 2}));
    const Sample sample = sample_from_record(rows->load(i), "", TurnMode::kConversation);
    EXPECT_EQ(sample.id, fmt::format("row{}", i));
    ASSERT_EQ(sample.images.size(), i == 2 ? 0u : 1u);
    if (i == 2) continue;
    EXPECT_EQ(read_media(sample.images[0], {}).size(), expected["png_bytes"][i].get<std::size_t>());
    EXPECT_EQ(probe_media(sample.images[0], {}, false), (ImageSize{6, 4}));
  }
}

TEST(ParquetSource, ReadsSeveralImagesAndTexts) {
  LLAVA_GOLDEN_OR_SKIP(path, "parquet/texts.parquet");
  const Dataset data({{path.string(), "", 1.0, 0}});
  ASSERT_EQ(data.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    const Sample sample = data.load(i, TurnMode::kConversation);
    EXPECT_EQ(sample.images.size(), i);
    EXPECT_EQ(sample.conversation.num_images(), i);
    EXPECT_EQ(data.info(i).has_media, i > 0);
    EXPECT_EQ(sample.conversation.messages.back().text(), fmt::format("{} images.", i));
  }
}

TEST(ParquetSource, SurvivesDamage) {
  LLAVA_GOLDEN_OR_SKIP(path, "parquet/conversations.parquet");
  const auto folder = test::scratch_dir("parquet_bad");
  const std::string whole = read_file(path);
  Rng rng(5);
  for (int trial = 0; trial < 100; ++trial) {
    std::string damaged = whole;
    for (int i = 0; i < 4; ++i) damaged[rng.below(damaged.size())] = static_cast<char>(rng.below(256));
    if (trial % 4 == 0) damaged.resize(rng.below(damaged.size()));
    std::ofstream(folder / "d.parquet", std::ios::binary) << damaged;
    try {
      const auto rows = open_parquet(folder / "d.parquet");
      for (std::size_t i = 0; i < rows->size(); ++i)
        sample_from_record(rows->load(i), "", TurnMode::kConversation);
    } catch (const Error& e) {
      EXPECT_NE(e.kind(), ErrorKind::kInternal) << e.what();
    }
  }
}

}  // namespace
}  // namespace llava
