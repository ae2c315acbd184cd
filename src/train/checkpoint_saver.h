#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "train/checkpoint.h"

namespace llava {

/// Writes checkpoints, beside the training where asked, and removes those that are no longer kept.
///
/// A write that fails leaves the checkpoints that were there and is a warning; the run goes on, because the
/// next write may work (space was freed) and the work done so far is not lost yet. After kMaxFailures in a
/// row, and when the last one of a run failed, it is an Error: nothing could be resumed from then.
class CheckpointSaver {
 public:
  struct Options {
    std::filesystem::path output;
    std::int64_t keep = 2;  ///< save_total_limit
    /// Called on the writing thread before "files", "manifest", "rename" and "prune"; for tests: what it
    /// throws is a failed write.
    std::function<void(std::string_view)> on_phase;
  };
  static constexpr int kMaxFailures = 3;

  explicit CheckpointSaver(Options options) : options_(std::move(options)) {}
  ~CheckpointSaver();  ///< waits
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  /// Waits for the write before, then writes; with `beside` on another thread, `content` must be copies
  /// then. `best`: the step that retention keeps besides the newest.
  void save(CheckpointContent content, std::optional<std::int64_t> best, bool beside);
  /// Warns of a write that failed since the last call; Error{kResource} after kMaxFailures in a row.
  void poll();
  /// Waits for the write under way. Before tensors of a content that is no copy change.
  void wait();
  /// wait() and poll(), and the Error of the last write if that one failed.
  void finish();
  /// The step of the newest checkpoint that is written or being written; -1: none.
  std::int64_t last_step() const { return last_step_; }

 private:
  void write(const CheckpointContent& content, std::optional<std::int64_t> best);

  Options options_;
  std::thread thread_;
  std::mutex mutex_;
  std::optional<Error> failure_;  ///< of the last write; guarded
  bool reported_ = true;          ///< guarded
  int failures_ = 0;              ///< in a row; guarded
  std::int64_t last_step_ = -1;
};

}  // namespace llava
