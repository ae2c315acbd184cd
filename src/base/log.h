#pragma once
#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace llava {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kSilent };

/// Messages below this level are dropped. Default kInfo; LLAVA_LOG=debug|info|warning|error|silent sets it
/// at start.
void set_log_level(LogLevel level);
LogLevel log_level();

/// One line on stderr: "[topic] text". Thread-safe; moves a progress bar out of the way.
void log_line(LogLevel level, std::string_view topic, std::string_view text);

template <class... Args>
void log_info(std::string_view topic, fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kInfo)
    log_line(LogLevel::kInfo, topic, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(std::string_view topic, fmt::format_string<Args...> format, Args&&... args) {
  if (log_level() <= LogLevel::kWarning)
    log_line(LogLevel::kWarning, topic, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace llava
