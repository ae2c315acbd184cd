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

namespace {

/// Encodes the runs between the added tokens that stay, without recognising any inside them.
class RunEncoder {
 public:
  RunEncoder(const Tokenizer& tokenizer, std::string_view text) : tokenizer_(tokenizer), text_(text) {}

  /// An added token over text [begin, end); the text before it is a run.
  void keep(std::int64_t id, std::size_t begin, std::size_t end) {
    flush(begin);
    out_.ids.push_back(id);
    out_.ends.push_back(end);
    done_ = end;
    before_ = end > begin ? id : -1;
  }

  Encoding finish() {
    flush(text_.size());
    return std::move(out_);
  }

 private:
  bool is_marked(std::int64_t id) const { return tokenizer_.id_to_token(id).starts_with(kWordMark); }

  /// Whether a text alone gets a dummy prefix that it does not get behind the added token `before_`
  /// (Metaspace with prepend_scheme "first", sentencepiece models that are not legacy).
  bool has_foreign_prefix() const {
    if (before_ < 0) return false;
    const std::vector<std::int64_t> alone = tokenizer_.encode("a", {false, false});
    const std::vector<std::int64_t> behind =
        tokenizer_.encode(tokenizer_.id_to_token(before_) + "a", {false, true});
    return !alone.empty() && is_marked(alone[0]) && behind.size() > 1 && behind[0] == before_ &&
           !is_marked(behind[1]);
  }

  void flush(std::size_t end) {
    if (end <= done_) return;
    std::string run(text_.substr(done_, end - done_));
    // A line break takes the prefix; its tokens are dropped again.
    const std::size_t lead = has_foreign_prefix() ? 1 : 0;
    run.insert(0, lead, '\n');
    const std::vector<std::int64_t> ids = tokenizer_.encode(run, {false, false});
    const std::vector<std::size_t> ends = align_tokens(tokenizer_, run, ids);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (lead > 0 && ends[i] <= lead) continue;
      out_.ids.push_back(ids[i]);
      out_.ends.push_back(done_ + ends[i] - lead);
    }
  }

  const Tokenizer& tokenizer_;
  std::string_view text_;
  Encoding out_;
  std::size_t done_ = 0;
  std::int64_t before_ = -1;  ///< the added token in front of the run; -1: none
};

}  // namespace

Encoding Tokenizer::encode_spans(std::string_view text, const EncodeOptions& options,
                                 std::span<const TextRange> literal) const {
  Encoding encoding;
  encoding.ids = encode(text, options);
  encoding.ends = align_tokens(*this, text, encoding.ids);
  const auto is_typed = [&](std::size_t i) {
    const std::size_t begin = i == 0 ? 0 : encoding.ends[i - 1], end = encoding.ends[i];
    return end > begin && is_special(encoding.ids[i]) &&
           std::any_of(literal.begin(), literal.end(),
                       [&](const TextRange& r) { return r.begin < end && begin < r.end; });
  };
  std::vector<bool> typed;
  for (std::size_t i = 0; i < encoding.ids.size(); ++i) typed.push_back(is_typed(i));
  if (std::find(typed.begin(), typed.end(), true) == typed.end()) return encoding;
  RunEncoder runs(*this, text);
  for (std::size_t i = 0; i < encoding.ids.size(); ++i)
    if (is_special(encoding.ids[i]) && !typed[i])
      runs.keep(encoding.ids[i], i == 0 ? 0 : encoding.ends[i - 1], encoding.ends[i]);
  return runs.finish();
}

}  // namespace llava
