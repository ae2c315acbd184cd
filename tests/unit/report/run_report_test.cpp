#include "report/run_report.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "report/run_data.h"
#include "support/golden.h"

namespace llava {
namespace {

namespace fs = std::filesystem;

TEST(HtmlText, EscapesWhatEndsTextOrAttributes) {
  EXPECT_EQ(html_text("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
}

TEST(ReadRun, SortsLinesIntoColumnsAndLeavesTornOnesOut) {
  const fs::path run = test::scratch_dir("columns");
  std::ofstream(run / "metrics.jsonl")
      << R"({"step":0,"stage":"a","loss":2.0,"tokens":10,"step_seconds":1.5})"
      << "\n"
      << R"({"step":0,"stage":"a","eval_loss":1.5})"
      << "\n"
      << R"({"step":1,"stage":"a","loss":null,"tokens":20,"step_seconds":0.5,"skipped":true})"
      << "\n"
      << R"({"step":2,"lo)";
  const RunData data = read_run(run);
  EXPECT_EQ(data.train.steps, (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(data.validation.steps, std::vector<std::int64_t>{0});
  EXPECT_EQ(data.tokens, 30);
  EXPECT_DOUBLE_EQ(data.seconds, 2.0);
  EXPECT_EQ(curves_json(data.validation), R"({"steps":[0],"curves":{"eval_loss":[1.5]}})");
  EXPECT_NE(curves_json(data.train).find(R"("loss":[2,null])"), std::string::npos)
      << curves_json(data.train);
  EXPECT_THROW(read_run(run / "nowhere"), Error);
}

TEST(ReadRun, ThinsLongRunsToMeansOfBuckets) {
  const fs::path run = test::scratch_dir("long");
  {
    std::ofstream file(run / "metrics.jsonl");
    for (std::size_t step = 0; step < 2 * kMaxCurvePoints + 2; ++step)
      file << "{\"step\":" << step << ",\"loss\":" << step % 3 << "}\n";
  }
  const RunData data = read_run(run);
  ASSERT_LE(data.train.steps.size(), kMaxCurvePoints);
  EXPECT_EQ(data.train.steps[0], 2);
  EXPECT_DOUBLE_EQ(data.train.find("loss")->values[0], 1.0);
  EXPECT_EQ(data.steps, static_cast<std::int64_t>(2 * kMaxCurvePoints + 2));
}

TEST(RunReport, IsOneFileThatNeedsNoNetworkAndShowsSamplesWithTheirImages) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  const fs::path run = test::scratch_dir("report");
  const fs::path image = fs::directory_iterator(train / "images")->path();
  std::ofstream(run / "metrics.jsonl") << R"({"step":0,"stage":"</script><b>","loss":2.0,"tokens":10})"
                                       << "\n";
  std::ofstream(run / "config.yaml") << "model: <m>\n";
  std::ofstream(run / "bad_steps.jsonl")
      << R"({"step":0,"action":"skip","reason":"loss nan","samples":[{"index":3,"sample":"x.json: record 3"}]})"
      << "\n";
  std::ofstream(run / "stages.jsonl") << R"({"step":0,"stage":"</script><b>","steps":5})"
                                      << "\n";
  const OrderedJson sample = {
      {"step", 0},
      {"kind", "validation"},
      {"sample", "v.json: record 1"},
      {"images", {image.string(), "/none.png"}},
      {"pieces", {{{"text", "What<is>"}, {"kind", "masked"}}, {{"text", "A cat"}, {"kind", "trained"}}}},
      {"answer", "A <dog>"}};
  std::ofstream(run / "samples.jsonl") << sample.dump() << "\n";
  EXPECT_EQ(write_run_report(run), run / "report.html");
  const std::string page = read_file(run / "report.html");
  for (const char* there :
       {"What&lt;is&gt;", "class=\"trained\">A cat", "A &lt;dog&gt;", "data:image/jpeg;base64,/9j/",
        "/none.png", "model: &lt;m&gt;", "x.json: record 3"})
    EXPECT_NE(page.find(there), std::string::npos) << there;
  EXPECT_EQ(page.find("</script><b>"), std::string::npos) << "data must not end the script";
  for (const char* outside : {"src=\"http", "href=", "@import", "url(http", "fetch("})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
}

}  // namespace
}  // namespace llava
