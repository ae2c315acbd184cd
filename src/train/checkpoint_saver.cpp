#include "train/checkpoint_saver.h"

#include "base/log.h"
#include "train/retention.h"

namespace llava {

CheckpointSaver::~CheckpointSaver() { wait(); }

void CheckpointSaver::write(const CheckpointContent& content, std::optional<std::int64_t> best) {
  try {
    const std::filesystem::path folder = write_checkpoint(options_.output, content, options_.on_phase);
    log_info("train", "saved {}", folder.string());
    {
      const std::lock_guard lock(mutex_);
      failure_.reset();
      failures_ = 0;
    }
    if (options_.on_phase) options_.on_phase("prune");
    prune_checkpoints(options_.output, options_.keep, best);
  } catch (const Error& e) {
    const std::lock_guard lock(mutex_);
    failure_ = e;
    reported_ = false;
    ++failures_;
  } catch (const std::exception& e) {  // of pruning: the checkpoint itself is there
    log_warning("train", "{}: old checkpoints stay: {}", options_.output.string(), e.what());
  }
}

void CheckpointSaver::save(CheckpointContent content, std::optional<std::int64_t> best, bool beside) {
  wait();
  last_step_ = content.step;
  if (!beside) return write(content, best);
  thread_ = std::thread([this, best, own = std::move(content)] { write(own, best); });
}

void CheckpointSaver::wait() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointSaver::poll() {
  const std::lock_guard lock(mutex_);
  if (!failure_ || reported_) return;
  reported_ = true;
  last_step_ = -1;
  if (failures_ >= kMaxFailures)
    throw Error(ErrorKind::kResource,
                fmt::format("{} checkpoints in a row could not be written; the last: {}", failures_,
                            failure_->what()),
                failure_->hint().empty() ? "the older checkpoints are intact: go on with --resume auto"
                                         : failure_->hint() + "; then go on with --resume auto");
  log_warning("train", "{}; the run goes on, older checkpoints are intact", failure_->what());
}

void CheckpointSaver::finish() {
  wait();
  poll();
  const std::lock_guard lock(mutex_);
  if (failure_) throw Error(*failure_);
}

}  // namespace llava
