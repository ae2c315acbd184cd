#include <algorithm>
#include <array>

#include "text/tokenizer.h"

namespace llava {

namespace {

/// GPT-2's bytes-to-characters table, inverted: the byte a character of a byte-level piece stands for, or
/// -1.
int byte_of_character(char32_t c) {
  const auto is_printed = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  static const std::array<int, 512> kTable = [&] {
    std::array<int, 512> table{};
    table.fill(-1);
    for (int byte = 0, next = 256; byte < 256; ++byte)
      table[static_cast<std::size_t>(is_printed(byte) ? byte : next++)] = byte;
    return table;
  }();
  return c < kTable.size() ? kTable[c] : -1;
}

/// The bytes of a byte-level piece; empty if it is not one.
std::string byte_level_text(std::string_view piece) {
  std::string bytes;
  for (std::size_t i = 0; i < piece.size();) {
    const auto lead = static_cast<unsigned char>(piece[i]);
    char32_t c = lead;
    if (lead >= 0xC0 && lead < 0xE0 && i + 1 < piece.size())
      c = (lead & 0x1FU) << 6 | (static_cast<unsigned char>(piece[i + 1]) & 0x3FU);
    else if (lead >= 0x80)
      return {};
    const int byte = byte_of_character(c);
    if (byte < 0) return {};
    bytes += static_cast<char>(byte);
    i += lead < 0x80 ? 1 : 2;
  }
  return bytes;
}

constexpr std::string_view kWordMark = "\xE2\x96\x81";  // U+2581, sentencepiece's space

/// The texts a piece may stand for, best first.
std::vector<std::string> surfaces(const std::string& piece, bool is_byte_level) {
  if (is_byte_level) {
    const std::string bytes = byte_level_text(piece);
    return bytes.empty() || bytes == piece ? std::vector<std::string>{piece}
                                           : std::vector<std::string>{bytes, piece};
  }
  if (piece.size() == 6 && piece.starts_with("<0x") && piece.back() == '>')
    return {std::string(1, static_cast<char>(std::strtol(piece.substr(3, 2).c_str(), nullptr, 16))), piece};
  std::string spaced;
  for (std::size_t i = 0; i < piece.size();) {
    const bool is_mark = piece.compare(i, kWordMark.size(), kWordMark) == 0;
    spaced += is_mark ? ' ' : piece[i];
    i += is_mark ? kWordMark.size() : 1;
  }
  if (!piece.starts_with(kWordMark)) return {spaced};
  return {spaced, spaced.substr(1)};  // the second: a dummy prefix, which has no text
}

}  // namespace

std::vector<std::size_t> align_tokens(const Tokenizer& tokenizer, std::string_view text,
                                      std::span<const std::int64_t> ids) {
  constexpr std::size_t kLookAhead = 64;
  bool is_byte_level = false;
  for (const std::int64_t id : tokenizer.encode(" a", {false, false}))
    is_byte_level =
        is_byte_level || tokenizer.id_to_token(id).find("\xC4\xA0") != std::string::npos;  // U+0120
  std::vector<std::size_t> ends;
  ends.reserve(ids.size());
  std::size_t at = 0;
  bool lost = false;  // a token before had no match: its text may lie between `at` and the next match
  for (const std::int64_t id : ids) {
    const std::vector<std::string> candidates = surfaces(tokenizer.id_to_token(id), is_byte_level);
    std::size_t found = std::string_view::npos, size = 0;
    for (const std::string& candidate : candidates) {
      if (candidate.empty() && candidates.size() == 1) break;
      if (text.substr(at, candidate.size()) != candidate) continue;
      found = at;
      size = candidate.size();
      break;
    }
    if (found == std::string_view::npos && lost && !candidates.front().empty()) {
      found = text.substr(at, kLookAhead + candidates.front().size()).find(candidates.front());
      if (found != std::string_view::npos) {
        found += at;
        size = candidates.front().size();
        for (std::size_t i = ends.size(); i > 0 && ends[i - 1] == at; --i) ends[i - 1] = found;
      }
    }
    // BOS and EOS of the post-processor have no text; other tokens without a match stand for changed text.
    lost = found == std::string_view::npos && (lost || !tokenizer.is_special(id));
    if (found != std::string_view::npos) at = found + size;
    ends.push_back(at);
  }
  for (std::size_t i = ends.size(); lost && i > 0 && ends[i - 1] == at; --i) ends[i - 1] = text.size();
  return ends;
}

Encoding Tokenizer::encode_spans(std::string_view text, const EncodeOptions& options,
                                 std::span<const TextRange> literal) const {
  Encoding encoding;
  encoding.ids = encode(text, options);
  encoding.ends = align_tokens(*this, text, encoding.ids);
  const auto overlaps = [&](std::size_t begin, std::size_t end) {
    return std::any_of(literal.begin(), literal.end(),
                       [&](const TextRange& r) { return r.begin < end && begin < r.end; });
  };
  bool is_clean = true;
  for (std::size_t i = 0, begin = 0; i < encoding.ids.size(); begin = encoding.ends[i++])
    is_clean = is_clean && !(encoding.ends[i] > begin && is_special(encoding.ids[i]) &&
                             overlaps(begin, encoding.ends[i]));
  if (is_clean) return encoding;
  Encoding out;
  std::size_t run = 0;
  const auto flush = [&](std::size_t end) {
    if (end <= run) return;
    const std::string_view part = text.substr(run, end - run);
    const std::vector<std::int64_t> ids = encode(part, {false, false});
    for (const std::size_t e : align_tokens(*this, part, ids)) out.ends.push_back(run + e);
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
  };
  for (std::size_t i = 0, begin = 0; i < encoding.ids.size(); begin = encoding.ends[i++]) {
    const std::size_t end = encoding.ends[i];
    const bool is_kept = is_special(encoding.ids[i]) && (end == begin || !overlaps(begin, end));
    if (!is_kept) continue;
    flush(begin);
    run = end;
    out.ids.push_back(encoding.ids[i]);
    out.ends.push_back(end);
  }
  flush(text.size());
  return out;
}

}  // namespace llava
