#include "text/decode_stages.h"

#include <algorithm>
#include <utility>

#include "text/byte_level.h"
#include "text/normalizer.h"

namespace llava {

void SinkStage::push(std::string_view text, bool) { out_.append(text); }

void ByteLevelStage::push(std::string_view text, bool) {
  std::string bytes, out;
  byte_level::append_bytes(bytes, text);
  utf8_.push(bytes, out);
  emit(out);
}

void ByteLevelStage::finish() {
  std::string out;
  utf8_.flush(out);
  emit(out);
  next_->finish();
}

void ByteLevelStage::emit(const std::string& text) {
  if (text.empty()) return;
  next_->push(text, std::exchange(first_, false));
}

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// The byte of a <0xXX> token, or -1.
int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return -1;
  if (token[3] == '+' && hex_digit(token[4]) >= 0)
    return hex_digit(token[4]);  // as Rust's from_str_radix reads it
  const int high = hex_digit(token[3]), low = hex_digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

void ByteFallbackStage::push(std::string_view text, bool) {
  if (const int byte = byte_of_token(text); byte >= 0) {
    run_.push_back(static_cast<char>(byte));
    return;
  }
  end_run();
  next_->push(text, true);
}

void ByteFallbackStage::end_run() {
  if (run_.empty()) return;
  const std::string run = std::exchange(run_, {});
  if (unicode::is_valid(run)) return next_->push(run, true);
  for (std::size_t i = 0; i < run.size(); ++i) next_->push(unicode::kReplacementUtf8, true);
}

void ByteFallbackStage::finish() {
  end_run();
  next_->finish();
}

void FuseStage::push(std::string_view text, bool) { next_->push(text, std::exchange(first_, false)); }

void StripStage::push(std::string_view text, bool begins_token) {
  if (begins_token) {
    end_token();
    at_start_ = begins_ = true;
    stripped_ = 0;
  }
  while (at_start_ && stripped_ < start_ && text.starts_with(content_)) {
    text.remove_prefix(content_.size());
    ++stripped_;
  }
  if (text.empty()) return;
  at_start_ = false;
  std::size_t copies = 0;
  std::string_view rest = text;
  while (copies < stop_ && rest.ends_with(content_)) {
    rest.remove_suffix(content_.size());
    ++copies;
  }
  if (!rest.empty()) {  // what was held is not the token's end
    for (; held_ > 0; --held_) emit(content_);
    emit(rest);
  }
  held_ += copies;
  for (; held_ > stop_; --held_) emit(content_);
}

void StripStage::emit(std::string_view text) { next_->push(text, std::exchange(begins_, false)); }

void StripStage::end_token() { held_ = 0; }

void StripStage::finish() {
  end_token();
  next_->finish();
}

void ReplaceStage::push(std::string_view text, bool begins_token) {
  if (!fused_) return next_->push(replace_all(text, pattern_, content_), true);
  if (begins_token) {
    end_token();
    begins_ = true;
  }
  held_.append(text);
  std::string out;
  std::size_t pos = 0;
  for (std::size_t hit; (hit = held_.find(pattern_, pos)) != std::string::npos; pos = hit + pattern_.size())
    out.append(held_, pos, hit - pos).append(content_);
  std::size_t tail = std::min(held_.size() - pos, pattern_.size() - 1);
  while (tail > 0 &&
         !std::string_view(pattern_).starts_with(std::string_view(held_).substr(held_.size() - tail)))
    --tail;
  out.append(held_, pos, held_.size() - tail - pos);
  held_.erase(0, held_.size() - tail);
  if (!out.empty() || begins_) next_->push(out, std::exchange(begins_, false));
}

void ReplaceStage::end_token() {
  if (!held_.empty()) next_->push(held_, std::exchange(begins_, false));
  held_.clear();
}

void ReplaceStage::finish() {
  end_token();
  next_->finish();
}

void MetaspaceStage::push(std::string_view text, bool begins_token) {
  if (begins_token) first_token_ = !std::exchange(any_token_, true);
  next_->push(replace_all(text, replacement_, drop_first_ && first_token_ ? "" : " "), begins_token);
}

void JoinStage::push(std::string_view text, bool begins_token) {
  if (begins_token && !std::exchange(first_, false)) next_->push(" ", true);
  next_->push(text, begins_token);
}

namespace {

std::string clean_up(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> kReplacements[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [pattern, content] : kReplacements) text = replace_all(text, pattern, content);
  return text;
}

/// The last place before a space where nothing on the left can still join with what comes: between two
/// words that have no character of the patterns.
std::size_t safe_cut(std::string_view text) {
  constexpr std::string_view kMarks = ".?!,'";
  constexpr std::size_t kLookBack = 256;  // a cut that is missed is found later: keeps streaming linear
  const std::size_t first = text.size() > kLookBack ? text.size() - kLookBack : 0;
  std::size_t right_space = text.size();
  while (right_space > first) {
    const std::size_t space = text.rfind(' ', right_space - 1);
    if (space == std::string_view::npos || space == 0) return 0;
    const std::size_t left_space = text.rfind(' ', space - 1);
    const std::size_t left = left_space == std::string_view::npos ? 0 : left_space + 1;
    const std::string_view before = text.substr(left, space - left);
    const std::string_view after = text.substr(space + 1, right_space - space - 1);
    const auto is_plain = [&](std::string_view word) {
      return !word.empty() && word.find_first_of(kMarks) == std::string_view::npos;
    };
    if (is_plain(before) && is_plain(after)) return space;
    right_space = space;
  }
  return 0;
}

}  // namespace

void CleanUpStage::push(std::string_view text, bool) {
  held_.append(text);
  if (const std::size_t cut = safe_cut(held_); cut > 0) {
    next_->push(clean_up(held_.substr(0, cut)), true);
    held_.erase(0, cut);
  }
}

void CleanUpStage::finish() {
  next_->push(clean_up(std::exchange(held_, {})), true);
  next_->finish();
}

}  // namespace llava
