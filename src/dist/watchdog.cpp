#include "dist/watchdog.h"

#include <cstdlib>

#include "base/error.h"
#include "base/log.h"

namespace llava {

namespace {

constexpr const char* kReason = "stopped";
std::string beat_key(int rank) { return fmt::format("beat/{}", rank); }

}  // namespace

Watchdog::Watchdog(Transport& transport, const Place& place, Options options)
    : transport_(transport), place_(place), options_(std::move(options)) {
  // Rank 0 looks after all, the others after rank 0: W looks a beat, not W^2.
  if (place_.rank == 0) {
    for (int rank = 1; rank < place_.size; ++rank) partners_[rank];
  } else {
    partners_[0];
  }
  thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Watchdog::started(std::uint64_t sequence, std::string what, std::shared_ptr<PendingTransfer> transfer,
                       std::chrono::seconds limit) {
  const std::lock_guard lock(mutex_);
  last_ = fmt::format("{} ({})", sequence, what);
  running_[sequence] = {std::move(what), std::move(transfer), Clock::now(), limit};
}

void Watchdog::finished(std::uint64_t sequence) {
  const std::lock_guard lock(mutex_);
  running_.erase(sequence);
}

std::string Watchdog::last() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

void Watchdog::watch() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (wake_.wait_for(lock, options_.beat, [this] { return stopping_; })) return;
    }
    check_running();
    check_partners();
  }
}

void Watchdog::check_running() {
  std::string why;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = running_.begin(); it != running_.end();) {
      const Running& r = it->second;
      if (r.transfer->done()) {
        it = running_.erase(it);
        continue;
      }
      const auto waited = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - r.start);
      if (waited >= r.limit && why.empty())
        why = fmt::format("collective {} ({}) has not ended for {} s (distributed.timeout_seconds)",
                          it->first, r.what, waited.count());
      ++it;
    }
  }
  if (!why.empty()) end_process(why);
}

void Watchdog::check_partners() {
  std::string why;
  try {
    transport_.post(beat_key(place_.rank), std::to_string(++beats_));
    const auto reason = transport_.look(kReason);
    if (reason) why = *reason;
    for (auto& [rank, partner] : partners_) {
      const std::string beat = transport_.look(beat_key(rank)).value_or("");
      partner.missed = beat == partner.beat ? partner.missed + 1 : 0;
      partner.beat = beat;
      if (partner.missed >= options_.missed_beats && why.empty())
        why = fmt::format("rank {} has shown no sign of life for {} s", rank,
                          partner.missed * options_.beat.count() / 1000);
    }
  } catch (const std::exception& e) {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    why = fmt::format("rank 0 is gone, nothing answers at {}:{}", place_.master_host, place_.master_port);
  }
  if (!why.empty()) end_process(why);
}

void Watchdog::end_process(const std::string& why) {
  {
    // the thread that runs the collectives may just be ending the process in an orderly way
    std::unique_lock lock(mutex_);
    if (wake_.wait_for(lock, options_.grace, [this] { return stopping_; })) return;
  }
  try {
    post_reason(transport_, place_, why);
  } catch (const std::exception&) {
    // nobody is left to be told
  }
  const std::string line =
      fmt::format("rank {} of {} ends: {}; its last collective: {}", place_.rank, place_.size, why, last());
  if (options_.die) return options_.die(line);
  log_line(LogLevel::kError, "dist", line);
  std::_Exit(exit_code(ErrorKind::kResource));
}

void Watchdog::post_reason(Transport& transport, const Place& place, const std::string& reason) {
  if (transport.look(kReason)) return;
  transport.post(kReason, fmt::format("rank {} stopped: {}", place.rank, reason));
}

std::string Watchdog::wait_for_reason(Transport& transport, std::chrono::milliseconds patience) {
  const auto end = Clock::now() + patience;
  try {
    while (Clock::now() < end) {
      if (const auto reason = transport.look(kReason)) return *reason;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  } catch (const std::exception&) {
    return "rank 0 is gone";
  }
  return {};
}

}  // namespace llava
