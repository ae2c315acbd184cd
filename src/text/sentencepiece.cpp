#include "text/sentencepiece.h"

#include <algorithm>

#include "base/error.h"
#include "text/normalizer.h"
#include "text/score_merger.h"
#include "text/space_mark.h"

namespace llava {
namespace {

using PieceType = SentencePieceModel::PieceType;

/// The charsmap blob: size of a trie, the trie's units, then the replacement texts, each ended by a zero
/// byte.
std::vector<std::uint32_t> read_charsmap(std::string_view blob, std::string_view& texts) {
  const auto word = [&](std::size_t pos) {
    std::uint32_t value = 0;
    for (std::size_t i = 4; i-- > 0;) value = (value << 8) | static_cast<unsigned char>(blob[pos + i]);
    return value;
  };
  if (blob.size() < 4) fail(ErrorKind::kFormat, "sentencepiece model: the character map is cut short");
  const std::size_t trie_size = word(0);
  if (trie_size > blob.size() - 4 || trie_size % 4 != 0 || trie_size == 0)
    fail(ErrorKind::kFormat, "sentencepiece model: the character map's trie of {} bytes does not fit",
         trie_size);
  std::vector<std::uint32_t> units(trie_size / 4);
  for (std::size_t i = 0; i < units.size(); ++i) units[i] = word(4 + 4 * i);
  texts = blob.substr(4 + trie_size);
  if (texts.empty() || texts.back() != '\0')
    fail(ErrorKind::kFormat, "sentencepiece model: the character map's texts are not ended");
  return units;
}

// A unit of the double-array trie (the layout of the Darts-clone library, which sentencepiece stores).
bool has_leaf(std::uint32_t unit) { return ((unit >> 8) & 1) != 0; }
std::uint32_t leaf_value(std::uint32_t unit) { return unit & 0x7FFFFFFF; }
std::uint32_t label(std::uint32_t unit) { return unit & 0x800000FF; }
std::uint32_t offset(std::uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

struct TrieHit {
  std::size_t len = 0;  ///< 0: none
  std::uint32_t value = 0;
};

TrieHit longest_in_trie(const std::vector<std::uint32_t>& units, std::string_view text) {
  TrieHit hit;
  std::uint32_t node = offset(units[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units.size() || label(units[node]) != byte) break;
    const bool leaf = has_leaf(units[node]);
    node ^= offset(units[node]);
    if (node >= units.size()) break;
    if (leaf) hit = {i + 1, leaf_value(units[node])};
  }
  return hit;
}

}  // namespace

SentencePiece::SentencePiece(SentencePieceModel model) : model_(std::move(model)) {
  std::fill(std::begin(byte_ids_), std::end(byte_ids_), -1);
  for (std::size_t i = 0; i < model_.pieces.size(); ++i) {
    const auto& piece = model_.pieces[i];
    const auto id = static_cast<std::int32_t>(i);
    ids_.emplace(piece.text, id);
    if (piece.type == PieceType::kUnknown) unk_id_ = id;
    if (piece.type == PieceType::kUserDefined) user_defined_.add(piece.text, id);
    if (piece.type == PieceType::kNormal || piece.type == PieceType::kUserDefined ||
        piece.type == PieceType::kUnused) {
      mergeable_.emplace(piece.text, id);
      max_piece_len_ = std::max(max_piece_len_, piece.text.size());
    }
  }
  for (int b = 0; b < 256; ++b) {
    const auto it = ids_.find(fmt::format("<0x{:02X}>", b));
    if (it != ids_.end()) byte_ids_[b] = it->second;
    const bool is_byte = byte_ids_[b] >= 0 && piece(byte_ids_[b]).type == PieceType::kByte;
    if (model_.byte_fallback && !is_byte)
      fail(ErrorKind::kFormat, "sentencepiece model: byte fallback, but the piece <0x{:02X}> is missing",
           b);
  }
  if (!model_.charsmap.empty()) charsmap_units_ = read_charsmap(model_.charsmap, charsmap_texts_);
}

std::int64_t SentencePiece::find(std::string_view piece) const {
  const auto it = ids_.find(piece);
  return it == ids_.end() ? unk_id_ : it->second;
}

/// What the beginning of `text` normalises to: a user-defined piece as it is, the longest entry of the
/// character map, or one character.
SentencePiece::Prefix SentencePiece::normalize_prefix(std::string_view text) const {
  if (const std::size_t len = user_defined_.longest(text, 0).len; len > 0)
    return {text.substr(0, len), len};
  if (!charsmap_units_.empty()) {
    if (const TrieHit hit = longest_in_trie(charsmap_units_, text);
        hit.len > 0 && hit.value < charsmap_texts_.size()) {
      const std::string_view rest = charsmap_texts_.substr(hit.value);
      return {rest.substr(0, rest.find('\0')), hit.len};
    }
  }
  const unicode::Step s = unicode::step(text, 0);
  if (!s.valid) return {unicode::kReplacementUtf8, 1};
  return {text.substr(0, s.len), s.len};
}

std::string SentencePiece::normalize(std::string_view text) const {
  const bool squeeze = model_.remove_extra_whitespaces;
  const std::string_view space = model_.escape_whitespaces ? kSpaceMark : std::string_view(" ");
  while (squeeze && !text.empty()) {
    const Prefix prefix = normalize_prefix(text);
    if (prefix.text != " ") break;
    text.remove_prefix(prefix.len);
  }
  std::string out;
  if (text.empty()) return out;
  if (model_.add_dummy_prefix && !model_.whitespace_as_suffix) out.append(space);
  bool after_space = squeeze;
  while (!text.empty()) {
    const Prefix prefix = normalize_prefix(text);
    std::string_view part = prefix.text;
    while (after_space && part.starts_with(' ')) part.remove_prefix(1);
    for (const char c : part) {
      if (c == ' ')
        out.append(space);
      else
        out.push_back(c);
    }
    if (!part.empty()) after_space = part.ends_with(' ');
    if (!squeeze) after_space = false;
    text.remove_prefix(prefix.len);
  }
  while (squeeze && out.ends_with(space)) out.resize(out.size() - space.size());
  if (model_.add_dummy_prefix && model_.whitespace_as_suffix) out.append(space);
  return out;
}

std::vector<std::int64_t> SentencePiece::encode(std::string_view text) const {
  const std::string normal = normalize(text);
  std::vector<ScoreMerger::Symbol> symbols;
  for (std::size_t pos = 0; pos < normal.size();) {
    const std::size_t user_len = user_defined_.empty() ? 0 : user_defined_.longest(normal, pos).len;
    const std::size_t len = user_len > 0 ? user_len : unicode::step(normal, pos).len;
    symbols.push_back({std::string_view(normal).substr(pos, len), user_len > 0});
    pos += len;
  }
  ScoreMerger::merge(symbols, [this](std::string_view joined) -> ScoreMerger::Found {
    if (joined.size() > max_piece_len_) return {};
    const auto it = mergeable_.find(joined);
    return it == mergeable_.end() ? ScoreMerger::Found{}
                                  : ScoreMerger::Found{true, piece(it->second).score};
  });
  std::vector<std::int64_t> ids;
  bool last_unknown = false;
  for (const auto& symbol : symbols) append_symbol(symbol.text, ids, last_unknown);
  return ids;
}

/// The ids of one merged symbol: its piece; for unknown text its bytes, or one unknown piece for a run.
void SentencePiece::append_symbol(std::string_view symbol, std::vector<std::int64_t>& ids,
                                  bool& last_unknown) const {
  const std::int64_t id = find(symbol);
  if (id != unk_id_) {
    ids.push_back(id);
    last_unknown = false;
    return;
  }
  if (model_.byte_fallback) {
    for (const char c : symbol) ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
    return;
  }
  if (!last_unknown) ids.push_back(unk_id_);
  last_unknown = true;
}

std::string SentencePieceDecoder::surface(std::string_view piece, std::int64_t id) {
  prefix_seen_ = false;
  const auto& known = model_->piece(id);
  if (known.type == PieceType::kControl) return {};
  if (known.type == PieceType::kUnknown)
    return known.text == piece ? model_->model().unk_surface : std::string(piece);
  const bool squeeze = model_->model().remove_extra_whitespaces;
  if (expects_prefix_ && (add_dummy_prefix_ || squeeze) && piece.starts_with(kSpaceMark)) {
    piece.remove_prefix(kSpaceMark.size());
    prefix_seen_ = !squeeze;  // with squeezing all leading spaces go
  }
  return replace_all(piece, kSpaceMark, " ");
}

void SentencePieceDecoder::push(std::string_view piece, std::string& out) {
  const std::int64_t id = model_->find(piece);
  if (model_->piece(id).type == PieceType::kByte) {
    int value = 0;
    for (const char c : piece.substr(3, 2)) value = value * 16 + (c <= '9' ? c - '0' : c - 'A' + 10);
    bytes_.push_back(static_cast<char>(value));
    drain_bytes(out, false);
    return;
  }
  flush(out);
  if (prefix_seen_ || any_text_) expects_prefix_ = false;
  const std::string text = surface(piece, id);
  any_text_ = any_text_ || !text.empty();
  out.append(text);
}

void SentencePieceDecoder::flush(std::string& out) { drain_bytes(out, true); }

/// Writes the whole characters among the bytes; malformed ones are replaced byte by byte, as sentencepiece
/// does.
void SentencePieceDecoder::drain_bytes(std::string& out, bool at_end) {
  std::size_t pos = 0;
  while (pos < bytes_.size()) {
    const unicode::Step s = unicode::step(bytes_, pos);
    if (s.truncated && !at_end) break;
    out.append(s.valid ? std::string_view(bytes_).substr(pos, s.len) : unicode::kReplacementUtf8);
    pos += s.valid ? s.len : 1;
    any_text_ = true;
  }
  bytes_.erase(0, pos);
}

}  // namespace llava
