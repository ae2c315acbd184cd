#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

#include "base/log_source.h"

namespace llava {

namespace {

LogLevel level_from_environment() {
  const char* text = std::getenv("LLAVA_LOG");
  const std::string name = text == nullptr ? "info" : text;
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  if (name == "silent") return LogLevel::kSilent;
  return LogLevel::kInfo;
}

std::atomic<LogLevel>& level() {
  static std::atomic<LogLevel> value{level_from_environment()};
  return value;
}

std::string& source() {
  static std::string text;
  return text;
}

}  // namespace

void set_log_source(std::string text) { source() = text.empty() ? "" : text + ": "; }

void set_log_level(LogLevel value) { level() = value; }
LogLevel log_level() { return level(); }

void log_line(LogLevel line_level, std::string_view topic, std::string_view text) {
  static std::mutex mutex;
  const char* mark = line_level == LogLevel::kWarning ? "warning: "
                     : line_level == LogLevel::kError ? "error: "
                                                      : "";
  const std::string line = fmt::format("[{}] {}{}{}\n", topic, source(), mark, text);
  const std::lock_guard lock(mutex);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace llava
