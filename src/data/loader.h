#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "data/dataset.h"
#include "data/sampler.h"
#include "prompt/prompt.h"

namespace llava {

/// One media item ready for the batch: its pixels, or where its tower features lie in the feature cache.
struct PreparedMedia {
  MediaPlan plan;
  std::vector<float> pixels;  ///< [tiles,3,H,W]; empty when cached
  std::int64_t cache_slot = -1;
};

struct PreparedSample {
  std::size_t index = 0;  ///< in the data set
  Prompt prompt;
  std::vector<PreparedMedia> media;
  Prompt rejected;        ///< kPair: the same prompt and media with the worse answer
  bool desirable = true;  ///< kLabelled
  std::string answer;     ///< kPrompt: the right answer, if the record says it

  /// Tiles of its images and frames of its videos: what the tower sees.
  std::int64_t num_views() const {
    std::int64_t views = 0;
    for (const PreparedMedia& m : media) views += m.plan.num_tiles;
    return views;
  }
};

/// A sample that could not be used and why.
struct BadSample {
  std::size_t index = 0;
  std::string reason;
};

/// The samples of a step that this process takes, in the order's order.
struct LoadedStep {
  std::int64_t step = 0;
  std::vector<PreparedSample> samples;
  std::vector<BadSample> bad;  ///< replaced ones
};

/// The places of the rank-th of `world` contiguous parts of a step, whose sizes differ by one at most: the
/// order of a run does not depend on the number of processes then.
std::vector<std::size_t> part_of(std::size_t count, std::int64_t rank, std::int64_t world);

/// Prepares samples ahead of the training step on a few threads: read, decode, resize, tokenise. What
/// next() returns depends on the order and the seed only, never on the threads' timing. A bad sample is
/// replaced by another one that is drawn from the seed and the position; after kMaxReplacements bad draws
/// the position is an Error.
class Loader {
 public:
  using Prepare = std::function<PreparedSample(std::size_t index)>;
  struct Options {
    std::int64_t threads = 2;
    std::int64_t first_step = 0, end_step = 0;
    std::size_t steps_ahead = 2;  ///< bound of the queue
    std::uint64_t seed = 0;
    std::size_t dataset_size = 0;
    std::int64_t rank = 0, world = 1;  ///< which part_of() each step is prepared here
  };
  static constexpr int kMaxReplacements = 32;

  /// `order` and what `prepare` uses must outlive the loader.
  Loader(const SampleOrder& order, Prepare prepare, const Options& options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The next step's samples; waits for them. Error{kInput} when no replacement could be found. Not past
  /// end_step.
  LoadedStep next();

 private:
  struct Job {
    std::int64_t step = 0;
    std::size_t slot = 0, index = 0;
    std::size_t place = 0;  ///< in the whole step: bad ones are replaced alike on any number of ranks
  };
  struct StepState {
    LoadedStep step;
    std::vector<std::vector<BadSample>> bad;
    std::size_t missing = 0;
    std::exception_ptr error;
  };
  void work();
  bool take_job(Job& job);
  void open_next_step();
  PreparedSample prepare_or_replace(const Job& job, std::vector<BadSample>& bad) const;

  const SampleOrder& order_;
  Prepare prepare_;
  Options options_;
  std::mutex mutex_;
  std::condition_variable work_ready_, step_ready_;
  std::deque<StepState> open_;  ///< steps in progress, oldest first
  std::deque<Job> jobs_;
  std::int64_t next_to_open_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace llava
