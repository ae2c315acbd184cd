#include "text/unicode.h"

#include "text/unicode_flags.h"

namespace llava::unicode {
namespace {

/// The range of the second byte after `lead` (Unicode 3.9, table 3-7); {1, 0} where `lead` cannot begin a
/// character.
struct Lead {
  std::uint8_t num_following, low, high;
};
Lead lead_of(unsigned char lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return {1, 0x80, 0xBF};
  if (lead == 0xE0) return {2, 0xA0, 0xBF};
  if (lead == 0xED) return {2, 0x80, 0x9F};
  if (lead >= 0xE1 && lead <= 0xEF) return {2, 0x80, 0xBF};
  if (lead == 0xF0) return {3, 0x90, 0xBF};
  if (lead >= 0xF1 && lead <= 0xF3) return {3, 0x80, 0xBF};
  if (lead == 0xF4) return {3, 0x80, 0x8F};
  return {0, 1, 0};
}

}  // namespace

Step step(std::string_view text, std::size_t pos) {
  const auto first = static_cast<unsigned char>(text[pos]);
  if (first < 0x80) return {first, 1, true, false};
  const Lead lead = lead_of(first);
  if (lead.num_following == 0) return {};
  char32_t code = first & (0x3F >> lead.num_following);
  std::uint8_t low = lead.low, high = lead.high;
  for (std::uint8_t i = 1; i <= lead.num_following; ++i) {
    if (pos + i >= text.size()) return {kReplacement, i, false, true};
    const auto next = static_cast<unsigned char>(text[pos + i]);
    if (next < low || next > high) return {kReplacement, i, false, false};
    code = (code << 6) | (next & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {code, static_cast<std::uint8_t>(lead.num_following + 1), true, false};
}

void append(std::string& out, char32_t code) {
  const auto byte = [&](char32_t value) { out.push_back(static_cast<char>(value)); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xC0 | (code >> 6));
    byte(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    byte(0xE0 | (code >> 12));
    byte(0x80 | ((code >> 6) & 0x3F));
    byte(0x80 | (code & 0x3F));
  } else {
    byte(0xF0 | (code >> 18));
    byte(0x80 | ((code >> 12) & 0x3F));
    byte(0x80 | ((code >> 6) & 0x3F));
    byte(0x80 | (code & 0x3F));
  }
}

std::string encode(char32_t code) {
  std::string out;
  append(out, code);
  return out;
}

bool is_valid(std::string_view text) {
  for (std::size_t pos = 0; pos < text.size();) {
    const Step s = step(text, pos);
    if (!s.valid) return false;
    pos += s.len;
  }
  return true;
}

std::string replace_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t pos = 0; pos < text.size();) {
    const Step s = step(text, pos);
    out.append(s.valid ? text.substr(pos, s.len) : kReplacementUtf8);
    pos += s.len;
  }
  return out;
}

std::u32string to_utf32(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (std::size_t pos = 0; pos < text.size();) {
    const Step s = step(text, pos);
    out.push_back(s.code);
    pos += s.len;
  }
  return out;
}

std::string to_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char32_t c : text) append(out, c);
  return out;
}

bool is_letter(char32_t c) { return (flags(c) & tables::kLetter) != 0; }
bool is_number(char32_t c) { return (flags(c) & tables::kNumber) != 0; }
bool is_numeric(char32_t c) { return (flags(c) & tables::kNumeric) != 0; }
bool is_punctuation(char32_t c) { return (flags(c) & tables::kPunctuation) != 0; }
bool is_word(char32_t c) { return (flags(c) & tables::kWord) != 0; }

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
  if (c < 0x1680) return c == 0x85 || c == 0xA0;
  return c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

void Utf8Stream::push(std::string_view bytes, std::string& out) {
  tail_.append(bytes);
  std::size_t pos = 0;
  while (pos < tail_.size()) {
    const Step s = step(tail_, pos);
    if (s.truncated) break;
    out.append(s.valid ? std::string_view(tail_).substr(pos, s.len) : kReplacementUtf8);
    pos += s.len;
  }
  tail_.erase(0, pos);
}

void Utf8Stream::flush(std::string& out) {
  if (!tail_.empty()) out.append(kReplacementUtf8);
  tail_.clear();
}

}  // namespace llava::unicode
