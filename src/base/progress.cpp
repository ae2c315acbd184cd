#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace llava {

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 3.6e8) return "?";
  const auto s = static_cast<std::int64_t>(seconds + 0.5);
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
                   : fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string format_bytes(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; unit < 4 && bytes >= 1024; ++unit) bytes /= 1024;
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

Progress::Progress(std::string title, std::int64_t total, std::int64_t done, Options options)
    : title_(std::move(title)),
      total_(total),
      first_(done),
      done_(done),
      options_(options),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      last_draw_(start_) {}

Progress::~Progress() { finish(); }

void Progress::update(std::int64_t done, std::string_view note) {
  done_ = done;
  note_ = note;
  const double since = std::chrono::duration<double>(Clock::now() - last_draw_).count();
  const double wait = terminal_ ? options_.redraw_seconds : options_.quiet_seconds;
  if (options_.enabled && !finished_ && since >= wait) draw(false);
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (options_.enabled && (drawn_ || done_ > first_)) draw(true);
}

std::string Progress::line(std::int64_t done, std::string_view note, double elapsed_seconds) const {
  const double rate = elapsed_seconds > 0 ? static_cast<double>(done - first_) / elapsed_seconds : 0;
  std::string text = title_ + " ";
  if (total_ > 0) {
    const double part = std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0);
    const int filled = static_cast<int>(part * 20);
    text += fmt::format("[{}{}] {}/{} {:.0f} %", std::string(filled, '#'), std::string(20 - filled, '.'),
                        done, total_, part * 100);
  } else {
    text += fmt::format("{}", done);
  }
  if (rate > 0)
    text += fmt::format(" {} {}", format_duration(elapsed_seconds),
                        rate >= 1 ? fmt::format("{:.1f}/s", rate) : fmt::format("{:.3f}/s", rate));
  if (rate > 0 && total_ > 0)
    text += fmt::format(" eta {}", format_duration(static_cast<double>(total_ - done) / rate));
  if (!note.empty()) text += fmt::format(" {}", note);
  return text;
}

void Progress::draw(bool last) {
  last_draw_ = Clock::now();
  drawn_ = true;
  const std::string text = line(done_, note_, std::chrono::duration<double>(last_draw_ - start_).count());
  const std::string output = terminal_ ? fmt::format("\r\x1b[K{}{}", text, last ? "\n" : "") : text + "\n";
  std::fwrite(output.data(), 1, output.size(), stderr);
}

}  // namespace llava
