#include <sys/resource.h>
#include <torch/torch.h>

#include <csignal>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/rng.h"
#include "support/golden.h"
#include "tiny_run.h"
#include "train/checkpoint_saver.h"
#include "train/retention.h"

namespace llava {
namespace {

namespace fs = std::filesystem;

CheckpointContent small_content(std::int64_t step, std::int64_t numbers = 100) {
  CheckpointContent content;
  content.step = step;
  content.files = {{"weights.safetensors", {{"w", at::full({numbers}, static_cast<double>(step))}}}};
  content.texts = {{"state.json", "{}"}};
  return content;
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

/// What a run would go on from, in a folder of random saves and validations.
TEST(Retention, KeepsTheLimitTheBestAndTheLatestOverAThousandRandomSchedules) {
  const fs::path root = test::scratch_dir("schedules");
  Rng rng(20261123);
  for (int schedule = 0; schedule < 1000; ++schedule) {
    const fs::path output = root / std::to_string(schedule);
    fs::create_directories(output);
    const auto limit = static_cast<std::int64_t>(rng.below(5));  // 0: keep all
    std::optional<std::int64_t> best;
    std::set<std::int64_t> saved;
    std::int64_t step = 0;
    for (std::uint64_t event = 0, events = 1 + rng.below(14); event < events; ++event) {
      step += static_cast<std::int64_t>(rng.below(3));  // the same step may be saved again
      if (rng.below(2) == 0) best = step;               // a better result: it is saved
      fs::create_directories(output / fmt::format("checkpoint-{}", step));
      std::ofstream(output / fmt::format("checkpoint-{}", step) / "manifest.json") << "{}";
      saved.insert(step);
      prune_checkpoints(output, limit, best);
      const auto left = list_checkpoints(output);
      ASSERT_TRUE(left.contains(step)) << "the latest, schedule " << schedule;
      ASSERT_TRUE(!best || left.contains(*best)) << "the best, schedule " << schedule;
      if (limit == 0) {
        ASSERT_EQ(left.size(), saved.size());
      } else {
        const bool two = limit == 1 && best && *best != step;
        ASSERT_LE(left.size(), static_cast<std::size_t>(two ? 2 : limit));
        ASSERT_GE(left.size(), std::min<std::size_t>(saved.size(), static_cast<std::size_t>(limit)));
      }
      for (const auto& entry : left) ASSERT_TRUE(saved.contains(entry.first));
      for (const std::int64_t old : saved)  // what is gone stays gone
        ASSERT_TRUE(left.contains(old) || old < step);
      std::erase_if(saved, [&](std::int64_t s) { return !left.contains(s); });
    }
    fs::remove_all(output);
  }
}

TEST(Retention, SetsLaterCheckpointsAsideAndClearsWhatKilledSavesLeft) {
  const fs::path output = test::scratch_dir("aside");
  for (const char* name : {"checkpoint-2", "checkpoint-4", "checkpoint-x", "tmp-checkpoint-6",
                           "tmp-old-checkpoint-1", "tmp-notes", "features-1"})
    fs::create_directories(output / name);
  EXPECT_EQ(set_aside_later(output, 2), 1u);
  EXPECT_EQ(names_in(output), (std::set<std::string>{"checkpoint-2", "superseded-checkpoint-4",
                                                     "checkpoint-x", "tmp-notes", "features-1"}));
}

TEST(CheckpointSaver, WritesBesideTheTrainingAndWaitsForTheOneBefore) {
  const fs::path output = test::scratch_dir("beside");
  std::atomic<bool> may_go_on = false;
  std::atomic<int> writing = 0;
  CheckpointSaver saver({output, 2, [&](std::string_view phase) {
                           if (phase == "files" && ++writing != 1) ADD_FAILURE() << "two writes at once";
                           while (phase == "rename" && !may_go_on) std::this_thread::yield();
                           if (phase == "prune") --writing;
                         }});
  saver.save(small_content(1), {}, true);
  EXPECT_FALSE(fs::exists(output / "checkpoint-1")) << "save() came back before the write was done";
  may_go_on = true;
  saver.save(small_content(2), {}, true);
  saver.save(small_content(3), {}, true);
  saver.finish();
  EXPECT_EQ(names_in(output), (std::set<std::string>{"checkpoint-2", "checkpoint-3"}));
  verify_checkpoint(output / "checkpoint-3");
}

TEST(CheckpointSaver, AFailedWriteInAnyPhaseKeepsTheOldOneAndTheRunGoesOn) {
  for (const char* where : {"files", "manifest", "rename"}) {
    const fs::path output = test::scratch_dir(std::string("failing_") + where);
    bool broken = false;
    CheckpointSaver saver({output, 1, [&](std::string_view phase) {
                             if (broken && phase == where)
                               fail(ErrorKind::kResource, "injected at {}", phase);
                           }});
    saver.save(small_content(1), {}, false);
    broken = true;
    saver.save(small_content(2), {}, true);
    saver.wait();
    EXPECT_NO_THROW(saver.poll()) << "one failure is a warning";
    EXPECT_EQ(names_in(output), std::set<std::string>{"checkpoint-1"});
    EXPECT_EQ(find_checkpoint(output), output / "checkpoint-1");
    EXPECT_THROW(saver.finish(), Error) << "but a run does not end well without its last checkpoint";
    broken = false;
    saver.save(small_content(3), {}, true);
    EXPECT_NO_THROW(saver.finish());
    EXPECT_EQ(names_in(output), std::set<std::string>{"checkpoint-3"});
  }
}

TEST(CheckpointSaver, ThreeFailuresInARowEndTheRun) {
  const fs::path output = test::scratch_dir("failing_always");
  CheckpointSaver saver({output, 2, [](std::string_view) { fail(ErrorKind::kResource, "no space"); }});
  for (int failure = 1; failure < CheckpointSaver::kMaxFailures; ++failure) {
    saver.save(small_content(failure), {}, true);
    saver.wait();
    EXPECT_NO_THROW(saver.poll());
  }
  saver.save(small_content(3), {}, true);
  saver.wait();
  try {
    saver.poll();
    FAIL() << "went on";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kResource);
    EXPECT_NE(std::string(e.what()).find("no space"), std::string::npos) << e.what();
  }
}

TEST(CheckpointSaver, AFileSizeLimitIsAnErrorNotAKill) {
  const fs::path output = test::scratch_dir("size_limit");
  CheckpointSaver saver({output, 2, {}});
  saver.save(small_content(1), {}, false);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);  // as install_stop_handlers does
  const rlimit small{64 << 10, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  saver.save(small_content(2, 100000), {}, true);
  saver.wait();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_NO_THROW(saver.poll());
  EXPECT_EQ(find_checkpoint(output), output / "checkpoint-1");
  EXPECT_EQ(names_in(output), std::set<std::string>{"checkpoint-1"});
}

TEST(WriteCheckpoint, RefusesWhatDoesNotFitOnTheDiskBeforeWritingAnything) {
  const fs::path output = test::scratch_dir("no_space");
  bool began = false;
  CheckpointContent content = small_content(1);
  // A view of one number as large as the disk and more: nothing of that size is ever made.
  const auto space = static_cast<std::int64_t>(fs::space(output).capacity);
  content.files[0].tensors[0].tensor = at::zeros({1}).expand({space});
  try {
    write_checkpoint(output, content, [&](std::string_view) { began = true; });
    FAIL() << "it fitted";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kResource);
    EXPECT_NE(std::string(e.what()).find("free"), std::string::npos) << e.what();
  }
  EXPECT_FALSE(began);
}

TEST(WriteCheckpoint, ReplacesOneOfTheSameStepAndDetectsEveryDamage) {
  const fs::path output = test::scratch_dir("replace");
  write_checkpoint(output, small_content(7));
  CheckpointContent other = small_content(7);
  other.texts[0].second = "{ }";
  const fs::path folder = write_checkpoint(output, other);
  EXPECT_EQ(names_in(output), std::set<std::string>{"checkpoint-7"});
  EXPECT_EQ(read_file(folder / "state.json"), "{ }");
  EXPECT_NO_THROW(verify_checkpoint(folder));
  const std::string whole = read_file(folder / "weights.safetensors");
  for (const std::size_t at : {std::size_t{0}, whole.size() / 2, whole.size() - 1}) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    write_file_atomic(folder / "weights.safetensors", flipped);
    EXPECT_THROW(verify_checkpoint(folder), Error) << "a bit of byte " << at;
  }
  write_file_atomic(folder / "weights.safetensors", std::string_view(whole).substr(0, whole.size() - 1));
  EXPECT_THROW(verify_checkpoint(folder), Error);
  EXPECT_EQ(find_checkpoint(output), std::nullopt);
}

/// Snapshots are what the model was when they were taken, and asynchronous saving changes no bit of the
/// run.
TEST(AsyncSave, GivesTheSameCheckpointsAsSavingInBetween) {
  LLAVA_GOLDEN_OR_SKIP(train, "train");
  std::map<bool, std::string> weights, states;
  for (const bool async : {false, true}) {
    TrainConfig config =
        test::tiny_config(train.parent_path(), test::scratch_dir(async ? "save_async" : "save_between"));
    config.async_save = async;
    config.save_steps = 2;
    config.save_total_limit = 0;
    config.stages[0].max_steps = 9;
    test::run(config);
    for (int step = 2; step <= 8; step += 2) {
      const fs::path folder = fs::path(config.output) / fmt::format("checkpoint-{}", step);
      weights[async] += read_file(folder / "weights.safetensors");
      states[async] += read_file(folder / "optimizer.safetensors");
    }
  }
  EXPECT_EQ(weights[false], weights[true]);
  EXPECT_EQ(states[false], states[true]);
}

}  // namespace
}  // namespace llava
