#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "dist/transport.h"

namespace llava {

/// Looks after a group from a thread of its own: collectives that take too long, partners that no longer
/// show signs of life, and partners that said why they stopped. Any of them ends this process, with a line
/// that names its last collective; a process that hangs in one cannot end itself.
class Watchdog {
 public:
  struct Options {
    std::chrono::seconds timeout{600};            ///< of one collective
    std::chrono::milliseconds beat{2000};         ///< between signs of life
    int missed_beats = 10;                        ///< in a row, until a partner counts as gone
    std::chrono::milliseconds grace{3000};        ///< for the process to end by itself, in good order
    std::function<void(const std::string&)> die;  ///< default: log the line and end the process, exit 1
  };
  Watchdog(Transport& transport, const Place& place, Options options);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Notes a collective that was started; `limit` replaces the timeout where longer waits are normal.
  void started(std::uint64_t sequence, std::string what, std::shared_ptr<PendingTransfer> transfer,
               std::chrono::seconds limit);
  void finished(std::uint64_t sequence);
  /// "17 (all_reduce bucket 3, 4096 elements of 4 bytes)".
  std::string last() const;

  /// Tells the others why this process stops; the first reason stays.
  static void post_reason(Transport& transport, const Place& place, const std::string& reason);
  /// What a process that stopped has said; waits a little for it. Empty: nothing.
  static std::string wait_for_reason(Transport& transport, std::chrono::milliseconds patience);

 private:
  using Clock = std::chrono::steady_clock;
  struct Running {
    std::string what;
    std::shared_ptr<PendingTransfer> transfer;
    Clock::time_point start;
    std::chrono::seconds limit;
  };
  struct Partner {
    std::string beat;
    int missed = 0;
  };
  void watch();
  void check_running();
  void check_partners();
  void end_process(const std::string& why);

  Transport& transport_;
  Place place_;
  Options options_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, Running> running_;
  std::string last_ = "none";
  std::map<int, Partner> partners_;
  std::uint64_t beats_ = 0;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace llava
