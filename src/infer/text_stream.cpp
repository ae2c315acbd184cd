#include "infer/text_stream.h"

#include <algorithm>

namespace llava {

namespace {

/// Length of the longest end of `text` that begins `stop`.
std::size_t partial_match(std::string_view text, std::string_view stop) {
  for (std::size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n)
    if (text.ends_with(stop.substr(0, n))) return n;
  return 0;
}

}  // namespace

TextStream::TextStream(const Tokenizer* tokenizer, std::vector<std::string> stop_strings)
    : stop_strings_(std::move(stop_strings)) {
  if (tokenizer != nullptr) detokenizer_.emplace_back(*tokenizer);
  std::erase(stop_strings_, std::string());
}

std::string TextStream::push(std::int64_t id) {
  if (stopped_ || detokenizer_.empty()) return {};
  pending_ += detokenizer_.front().push(id);
  return release(false);
}

std::string TextStream::flush() {
  if (stopped_ || detokenizer_.empty()) return {};
  pending_ += detokenizer_.front().flush();
  return release(true);
}

std::string TextStream::release(bool everything) {
  std::size_t end = pending_.size(), held = 0;
  for (const std::string& stop : stop_strings_) {
    const std::size_t at = pending_.find(stop);
    if (at < end) end = at;
    if (at != std::string::npos) stopped_ = true;
    if (!everything) held = std::max(held, partial_match(pending_, stop));
  }
  if (!stopped_) end = pending_.size() - held;
  std::string certain = pending_.substr(0, end);
  pending_.erase(0, stopped_ ? pending_.size() : end);
  return certain;
}

}  // namespace llava
