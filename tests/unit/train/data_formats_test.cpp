#include <gtest/gtest.h>

#include <fstream>

#include "base/files.h"
#include "support/golden.h"
#include "support/tar.h"
#include "tiny_run.h"

namespace llava {
namespace {

namespace fs = std::filesystem;

std::vector<double> losses_of(const test::RunResult& result) {
  std::vector<double> losses;
  for (const StepMetrics& metrics : result.steps) losses.push_back(metrics.loss);
  return losses;
}

TEST(TrainData, TarShardsTrainAsFilesDo) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("from_files"));
  config.stages[0].max_steps = 4;
  const auto expected = losses_of(test::run(config));
  const fs::path folder = test::scratch_dir("from_tar");
  const Json records = read_json_file(train / "data.json");
  for (std::size_t shard = 0; shard < 2; ++shard) {
    std::ofstream tar(folder / fmt::format("s-{}.tar", shard), std::ios::binary);
    for (std::size_t i = shard * 4; i < std::min<std::size_t>(records.size(), shard * 4 + 4); ++i) {
      if (records[i].contains("image"))
        tar << test::tar_member(fmt::format("{:04}.png", i),
                                read_file(train / records[i]["image"].get<std::string>()));
      tar << test::tar_member(fmt::format("{:04}.json", i), records[i].dump());
    }
    tar << std::string(1024, '\0');
  }
  for (const FeatureCacheMode cache : {FeatureCacheMode::kAuto, FeatureCacheMode::kOff}) {
    TrainConfig sharded = config;
    sharded.output = (folder / fmt::format("run{}", static_cast<int>(cache))).string();
    sharded.stages[0].data[0].path = (folder / "s-{0..1}.tar").string();
    sharded.stages[0].feature_cache = cache;
    const auto losses = losses_of(test::run(sharded));
    ASSERT_EQ(losses.size(), expected.size());
    for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected[i], 1e-6);
  }
}

TEST(TrainData, FilmsAreTrainedOn) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  LLAVA_GOLDEN_OR_SKIP(film, "video/constant.mp4");
  const fs::path folder = test::scratch_dir("film_run");
  const Json record = {
      {"id", "film"},
      {"video", fs::absolute(film).string()},
      {"conversations",
       {{{"from", "human"}, {"value", "<video>\nWhat happens?"}}, {{"from", "gpt"}, {"value", "Much."}}}}};
  std::ofstream(folder / "a.jsonl") << record.dump() << "\n";
  TrainConfig config = test::tiny_config(train.parent_path(), folder / "run");
  config.stages[0].data[0].path = (folder / "a.jsonl").string();
  config.stages[0].max_steps = 12;
  config.stages[0].batch_size = 1;
  config.stages[0].lr = {{"", 1e-2}};
  config.media.num_frames = 3;
  const auto result = test::run(config);
  EXPECT_EQ(result.steps.at(0).images, 1);
  EXPECT_LT(result.steps.back().loss, result.steps.front().loss);
}

TEST(TrainData, IsCheckedWithoutTheWeights) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  TrainConfig config = test::tiny_config(train.parent_path(), test::scratch_dir("checked"));
  config.stages.push_back(config.stages[0]);
  config.stages[1].max_length = 8;
  Trainer trainer(config, {});
  const std::vector<DataReport> reports = trainer.check_data({});
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[0].samples, 8u);
  EXPECT_EQ(reports[0].defective(), 0u) << reports[0].to_text();
  EXPECT_GT(reports[1].counts[static_cast<std::size_t>(Defect::kOverLong)], 0u);
  config.media.max_pixels = 1;
  const DataReport small = Trainer(config, {}).check_data({}).front();
  EXPECT_GT(small.counts[static_cast<std::size_t>(Defect::kUnreadableImage)], 0u);
  EXPECT_FALSE(fs::exists(fs::path(config.output) / "config.yaml"));
}

}  // namespace
}  // namespace llava
