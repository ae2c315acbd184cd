#include "text/bpe.h"

#include <limits>
#include <queue>

#include "base/error.h"
#include "text/unicode.h"

namespace llava {
namespace {

constexpr std::size_t kShortWord = 24;  // below this a scan for the best pair beats a heap

std::size_t table_size(std::size_t num_merges) {
  std::size_t size = 16;
  while (size < num_merges * 2) size *= 2;
  return size;
}

std::uint64_t pair_key(std::int64_t left, std::int64_t right) {
  return (static_cast<std::uint64_t>(left) << 32) | static_cast<std::uint64_t>(right);
}

std::size_t hash_pair(std::uint64_t key) {
  key *= 0x9E3779B97F4A7C15ULL;
  return static_cast<std::size_t>(key ^ (key >> 29));
}

}  // namespace

BpeModel::BpeModel(Vocabulary vocabulary, std::span<const std::pair<std::string, std::string>> merges,
                   Options options)
    : vocabulary_(std::move(vocabulary)), options_(std::move(options)), merges_(table_size(merges.size())) {
  if (!options_.unk_token.empty()) unk_id_ = vocabulary_.find(options_.unk_token);
  for (int b = 0; b < 256; ++b) byte_ids_[b] = vocabulary_.find(fmt::format("<0x{:02X}>", b));
  std::int32_t rank = 0;
  for (const auto& [left, right] : merges) add_merge(left, right, rank++);
}

void BpeModel::add_merge(std::string_view left, std::string_view right, std::int32_t rank) {
  const std::string joined = std::string(left) + std::string(right);
  for (const std::string_view token : {left, right, std::string_view(joined)})
    if (vocabulary_.find(token) < 0)
      fail(ErrorKind::kFormat, "merge {} (\"{}\" \"{}\"): token \"{}\" is not in the vocabulary", rank,
           left, right, token);
  const std::uint64_t key = pair_key(vocabulary_.find(left), vocabulary_.find(right));
  std::size_t slot = hash_pair(key) & (merges_.size() - 1);
  while (merges_[slot].pair != kNoPair && merges_[slot].pair != key)
    slot = (slot + 1) & (merges_.size() - 1);
  merges_[slot] = {key, rank, vocabulary_.find(joined)};
}

const BpeModel::Merge* BpeModel::find_merge(std::int64_t left, std::int64_t right) const {
  const std::uint64_t key = pair_key(left, right);
  for (std::size_t slot = hash_pair(key) & (merges_.size() - 1);;
       slot = (slot + 1) & (merges_.size() - 1)) {
    if (merges_[slot].pair == key) return &merges_[slot];
    if (merges_[slot].pair == kNoPair) return nullptr;
  }
}

void BpeModel::encode(std::string_view word, std::vector<std::int64_t>& out) const {
  if (word.empty()) return;
  if (options_.ignore_merges) {
    if (const std::int32_t id = vocabulary_.find(word); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  const std::size_t begin = out.size();
  first_symbols(word, out);
  if (out.size() - begin <= kShortWord)
    merge_short(out, begin);
  else
    merge_long(out, begin);
}

/// One symbol a character. A pending unknown is written before the next known character, so byte tokens
/// overtake it, as in the reference.
void BpeModel::first_symbols(std::string_view word, std::vector<std::int64_t>& out) const {
  bool pending_unk = false;
  for (std::size_t pos = 0; pos < word.size();) {
    const std::string_view character = word.substr(pos, unicode::step(word, pos).len);
    pos += character.size();
    if (const std::int32_t id = vocabulary_.find(character); id >= 0) {
      if (pending_unk) out.push_back(unk_id_);
      pending_unk = false;
      out.push_back(id);
      continue;
    }
    if (options_.byte_fallback && append_bytes_of(character, out)) continue;
    if (options_.unk_token.empty()) continue;
    if (unk_id_ < 0)
      fail(ErrorKind::kFormat, "unk_token \"{}\" is not in the vocabulary", options_.unk_token);
    if (pending_unk && !options_.fuse_unk) out.push_back(unk_id_);
    pending_unk = true;
  }
  if (pending_unk) out.push_back(unk_id_);
}

bool BpeModel::append_bytes_of(std::string_view character, std::vector<std::int64_t>& out) const {
  for (const char c : character)
    if (byte_ids_[static_cast<unsigned char>(c)] < 0) return false;
  for (const char c : character) out.push_back(byte_ids_[static_cast<unsigned char>(c)]);
  return true;
}

void BpeModel::merge_short(std::vector<std::int64_t>& ids, std::size_t begin) const {
  std::size_t count = ids.size() - begin;
  const Merge* pairs[kShortWord];
  for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = find_merge(ids[begin + i], ids[begin + i + 1]);
  while (count > 1) {
    std::size_t best = count;
    for (std::size_t i = 0; i + 1 < count; ++i)
      if (pairs[i] != nullptr && (best == count || pairs[i]->rank < pairs[best]->rank)) best = i;
    if (best == count) break;
    ids[begin + best] = pairs[best]->result;
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      ids[begin + i] = ids[begin + i + 1];
      pairs[i] = i + 2 < count ? pairs[i + 1] : nullptr;
    }
    --count;
    if (best > 0) pairs[best - 1] = find_merge(ids[begin + best - 1], ids[begin + best]);
    if (best + 1 < count) pairs[best] = find_merge(ids[begin + best], ids[begin + best + 1]);
  }
  ids.resize(begin + count);
}

void BpeModel::merge_long(std::vector<std::int64_t>& ids, std::size_t begin) const {
  struct Symbol {
    std::int64_t id;
    std::int64_t previous, next;  // -1: none
  };
  struct Candidate {
    std::int32_t rank, result;
    std::int64_t left;
    bool operator<(const Candidate& other) const {  // best on top: lowest rank, then leftmost
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  const auto count = static_cast<std::int64_t>(ids.size() - begin);
  std::vector<Symbol> symbols(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i)
    symbols[static_cast<std::size_t>(i)] = {ids[begin + static_cast<std::size_t>(i)], i - 1,
                                            i + 1 < count ? i + 1 : -1};
  const auto symbol = [&](std::int64_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };
  const auto merge_at = [&](std::int64_t left) -> const Merge* {
    return symbol(left).next < 0 ? nullptr : find_merge(symbol(left).id, symbol(symbol(left).next).id);
  };
  std::priority_queue<Candidate> queue;
  const auto push = [&](std::int64_t left) {
    if (const Merge* merge = merge_at(left)) queue.push({merge->rank, merge->result, left});
  };
  for (std::int64_t i = 0; i + 1 < count; ++i) push(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    if (symbol(top.left).id < 0) continue;  // merged into its left neighbour
    const Merge* merge = merge_at(top.left);
    if (merge == nullptr || merge->result != top.result) continue;  // the pair has changed since
    const std::int64_t gone = symbol(top.left).next;
    symbol(top.left).id = top.result;
    symbol(top.left).next = symbol(gone).next;
    symbol(gone).id = -1;
    if (symbol(gone).next >= 0) symbol(symbol(gone).next).previous = top.left;
    if (symbol(top.left).previous >= 0) push(symbol(top.left).previous);
    push(top.left);
  }
  ids.resize(begin);
  for (std::int64_t i = 0; i >= 0; i = symbol(i).next) ids.push_back(symbol(i).id);
}

namespace {

constexpr std::size_t kMaxTokens = std::size_t{1} << 21, kMaxMerges = std::size_t{1} << 22;

Vocabulary vocabulary_from_json(const Json& model) {
  const auto it = model.find("vocab");
  if (it == model.end() || !it->is_object())
    fail(ErrorKind::kFormat, "model.vocab must be an object of token -> id");
  if (it->size() > kMaxTokens)
    fail(ErrorKind::kFormat, "model.vocab has {} tokens, more than {}", it->size(), kMaxTokens);
  Vocabulary vocabulary;
  for (const auto& [token, id] : it->items()) {
    if (!id.is_number_integer() ||
        (id.is_number_unsigned() && id.get<std::uint64_t>() > std::uint64_t{kMaxTokenId}))
      fail(ErrorKind::kFormat, "model.vocab: the id of \"{}\" must be an integer of 0..{}, not {}", token,
           kMaxTokenId, id.dump().substr(0, 80));
    vocabulary.add(token, id.get<std::int64_t>());
  }
  return vocabulary;
}

/// One merge: "left right" or ["left", "right"].
std::pair<std::string, std::string> merge_from_json(const Json& merge, std::size_t index) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  if (merge.is_string()) {
    const std::string& text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos)
      return {text.substr(0, space), text.substr(space + 1)};
  }
  fail(ErrorKind::kFormat, "model.merges[{}] must be \"left right\" or [\"left\", \"right\"]", index);
}

}  // namespace

BpeModel bpe_from_json(const Json& model) {
  if (!model.is_object()) fail(ErrorKind::kFormat, "\"model\" must be an object");
  const auto type = json_get_or<std::string>(model, "type", "BPE", "model");
  if (type != "BPE") fail(ErrorKind::kUnsupported, "tokenizer model \"{}\" (known: BPE)", type);
  if (json_get_or<double>(model, "dropout", 0.0, "model") != 0.0)
    fail(ErrorKind::kUnsupported, "BPE with dropout makes random ids");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!json_get_or<std::string>(model, key, "", "model").empty())
      fail(ErrorKind::kUnsupported, "BPE with \"{}\"", key);
  BpeModel::Options options;
  options.unk_token = json_get_or<std::string>(model, "unk_token", "", "model");
  options.fuse_unk = json_get_or<bool>(model, "fuse_unk", false, "model");
  options.byte_fallback = json_get_or<bool>(model, "byte_fallback", false, "model");
  options.ignore_merges = json_get_or<bool>(model, "ignore_merges", false, "model");
  const auto it = model.find("merges");
  if (it == model.end() || !it->is_array()) fail(ErrorKind::kFormat, "model.merges must be an array");
  if (it->size() > kMaxMerges)
    fail(ErrorKind::kFormat, "model.merges has {} rows, more than {}", it->size(), kMaxMerges);
  std::vector<std::pair<std::string, std::string>> merges;
  merges.reserve(it->size());
  for (const Json& merge : *it) merges.push_back(merge_from_json(merge, merges.size()));
  return BpeModel(vocabulary_from_json(model), merges, std::move(options));
}

}  // namespace llava
