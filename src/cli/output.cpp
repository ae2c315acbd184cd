#include "cli/output.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/signals.h"

namespace llava {

namespace {

/// Reads up to 64 KiB more. 1: got some, 0: end, -1: interrupted by a signal.
int read_some(std::string& buffer) {
  char chunk[65536];
  const ssize_t n = ::read(STDIN_FILENO, chunk, sizeof chunk);
  if (n > 0) {
    buffer.append(chunk, static_cast<std::size_t>(n));
    return 1;
  }
  if (n == 0) return 0;
  if (errno == EINTR) return -1;
  fail(ErrorKind::kInput, "cannot read standard input: {}", std::strerror(errno));
}

}  // namespace

void write_out(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorKind::kResource, "cannot write to standard output: {}", std::strerror(errno));
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

std::string to_json_text(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

void write_json_line(const OrderedJson& json) { write_out(to_json_text(json) + "\n"); }

bool stdout_is_terminal() { return ::isatty(STDOUT_FILENO) == 1; }
bool stdin_is_terminal() { return ::isatty(STDIN_FILENO) == 1; }

LineReader::Status LineReader::next(std::string& line, std::size_t max_bytes) {
  std::size_t searched = 0;
  for (;;) {
    const std::size_t end = buffer_.find('\n', searched);
    if (end != std::string::npos) {
      line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      if (line.ends_with('\r')) line.pop_back();
      return Status::kLine;
    }
    if (ended_) {
      if (buffer_.empty()) return Status::kEnd;
      line = std::move(buffer_);
      buffer_.clear();
      return Status::kLine;
    }
    searched = buffer_.size();
    if (searched > max_bytes)
      fail(ErrorKind::kInput, "standard input: a line is longer than {} bytes", max_bytes);
    const int got = read_some(buffer_);
    if (got < 0 && stop_flag().load()) return Status::kInterrupted;
    if (got == 0) ended_ = true;
  }
}

std::string read_stdin(std::size_t max_bytes) {
  std::string text;
  for (int got = 1; got != 0;) {
    got = read_some(text);
    if (got < 0 && stop_flag().load()) fail(ErrorKind::kStopped, "stopped while reading standard input");
    if (text.size() > max_bytes)
      fail(ErrorKind::kInput, "standard input is longer than {} bytes", max_bytes);
  }
  return text;
}

}  // namespace llava
