#include "data/loader.h"

#include "base/error.h"
#include "base/rng.h"

namespace llava {

std::vector<std::size_t> part_of(std::size_t count, std::int64_t rank, std::int64_t world) {
  const auto w = static_cast<std::size_t>(world), r = static_cast<std::size_t>(rank);
  std::vector<std::size_t> places;
  for (std::size_t i = count * r / w; i < count * (r + 1) / w; ++i) places.push_back(i);
  return places;
}

Loader::Loader(const SampleOrder& order, Prepare prepare, const Options& options)
    : order_(order), prepare_(std::move(prepare)), options_(options), next_to_open_(options.first_step) {
  LLAVA_ASSERT(options.threads > 0 && options.dataset_size > 0, "a loader needs threads and data");
  const std::lock_guard lock(mutex_);
  for (std::int64_t i = 0; i < options.threads; ++i) threads_.emplace_back([this] { work(); });
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

LoadedStep Loader::next() {
  std::unique_lock lock(mutex_);
  if (open_.empty()) open_next_step();
  LLAVA_ASSERT(!open_.empty(), "the loader was asked for a step past its end");
  step_ready_.wait(lock, [&] { return open_.front().missing == 0; });
  StepState state = std::move(open_.front());
  open_.pop_front();
  lock.unlock();
  work_ready_.notify_all();
  if (state.error) std::rethrow_exception(state.error);
  for (std::vector<BadSample>& bad : state.bad)
    for (BadSample& one : bad) state.step.bad.push_back(std::move(one));
  return std::move(state.step);
}

/// Under the lock: queues the jobs of one more step, if there is one and the bound allows.
void Loader::open_next_step() {
  if (next_to_open_ >= options_.end_step || open_.size() > options_.steps_ahead) return;
  const std::vector<std::size_t> indices = order_.step_samples(next_to_open_);
  const std::vector<std::size_t> places = part_of(indices.size(), options_.rank, options_.world);
  StepState state;
  state.step.step = next_to_open_;
  state.step.samples.resize(places.size());
  state.bad.resize(places.size());
  state.missing = places.size();
  open_.push_back(std::move(state));
  for (std::size_t i = 0; i < places.size(); ++i)
    jobs_.push_back({next_to_open_, i, indices[places[i]], places[i]});
  ++next_to_open_;
  work_ready_.notify_all();
}

bool Loader::take_job(Job& job) {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (stopping_) return false;
    if (jobs_.empty()) open_next_step();
    if (!jobs_.empty()) break;
    work_ready_.wait(lock);
  }
  job = jobs_.front();
  jobs_.pop_front();
  return true;
}

void Loader::work() {
  Job job;
  while (take_job(job)) {
    PreparedSample sample;
    std::vector<BadSample> bad;
    std::exception_ptr error;
    try {
      sample = prepare_or_replace(job, bad);
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    for (StepState& state : open_) {
      if (state.step.step != job.step) continue;
      state.step.samples[job.slot] = std::move(sample);
      state.bad[job.slot] = std::move(bad);
      if (error && !state.error) state.error = error;
      if (--state.missing == 0) step_ready_.notify_all();
    }
  }
}

PreparedSample Loader::prepare_or_replace(const Job& job, std::vector<BadSample>& bad) const {
  std::size_t index = job.index;
  Rng rng(options_.seed ^ (static_cast<std::uint64_t>(job.step) << 24) ^ job.place ^ 0xBAD5A3B1EULL);
  for (int attempt = 0;; ++attempt) {
    try {
      PreparedSample sample = prepare_(index);
      sample.index = index;
      return sample;
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::kInternal || e.kind() == ErrorKind::kStopped) throw;
      bad.push_back({index, e.what()});
      if (attempt == kMaxReplacements)
        fail(ErrorKind::kInput, "{} samples in a row cannot be used; the last: {}", attempt + 1, e.what());
    }
    index = rng.below(options_.dataset_size);
  }
}

}  // namespace llava
