#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace llava {

/// A progress bar on stderr: redrawn in place on a terminal, one line every `quiet_seconds` elsewhere.
/// Shows done/total, rate, time left and a caller's note. Use from one thread.
class Progress {
 public:
  struct Options {
    double quiet_seconds = 30;
    double redraw_seconds = 0.2;
    bool enabled = true;
  };
  /// `total` 0: unknown, only the count and rate are shown. `done` > 0: resumed work, not counted in the
  /// rate.
  Progress(std::string title, std::int64_t total, std::int64_t done, Options options);
  Progress(std::string title, std::int64_t total, std::int64_t done = 0)
      : Progress(std::move(title), total, done, Options()) {}
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(std::int64_t done, std::string_view note = {});
  /// Draws the last state and ends the line.
  void finish();
  /// The text of a state, without escape codes; for tests.
  std::string line(std::int64_t done, std::string_view note, double elapsed_seconds) const;

 private:
  using Clock = std::chrono::steady_clock;
  void draw(bool last);

  std::string title_, note_;
  std::int64_t total_, first_, done_;
  Options options_;
  bool terminal_, finished_ = false, drawn_ = false;
  Clock::time_point start_, last_draw_;
};

/// "1:02:03", "4:05"; "?" for a negative or huge number.
std::string format_duration(double seconds);
/// "1.4 GiB", "380 KiB".
std::string format_bytes(double bytes);

}  // namespace llava
