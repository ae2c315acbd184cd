#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace llava {

/// Writes to stdout and flushes. Error{kResource} if nobody reads it any more.
void write_out(std::string_view text);

/// One JSON document and a line break; invalid UTF-8 becomes U+FFFD.
void write_json_line(const OrderedJson& json);
std::string to_json_text(const OrderedJson& json);

bool stdout_is_terminal();
bool stdin_is_terminal();

/// Reads lines from stdin; a signal ends a blocked read.
class LineReader {
 public:
  enum class Status { kLine, kEnd, kInterrupted };
  /// The next line without its break, in `line`. Error{kInput} for a line longer than `max_bytes`.
  Status next(std::string& line, std::size_t max_bytes = std::size_t{64} << 20);

 private:
  std::string buffer_;
  bool ended_ = false;
};

/// All of stdin. Error{kInput} above `max_bytes`.
std::string read_stdin(std::size_t max_bytes = std::size_t{256} << 20);

}  // namespace llava
