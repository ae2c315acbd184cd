#include "text/vocabulary.h"

#include <algorithm>

#include "base/error.h"

namespace llava {

void Vocabulary::add(std::string_view token, std::int64_t id) {
  if (id < 0 || id > kMaxTokenId) fail(ErrorKind::kFormat, "token id {} is outside 0..{}", id, kMaxTokenId);
  const std::string& stored = storage_.emplace_back(token);
  ids_[stored] = static_cast<std::int32_t>(id);
  const auto index = static_cast<std::size_t>(id);
  if (index >= by_id_.size()) by_id_.resize(index + 1, nullptr);
  by_id_[index] = &stored;
  max_token_len_ = std::max(max_token_len_, token.size());
}

std::int32_t Vocabulary::find(std::string_view token) const {
  if (token.size() > max_token_len_) return -1;
  const auto it = ids_.find(token);
  return it == ids_.end() ? -1 : it->second;
}

bool Vocabulary::has(std::int64_t id) const {
  return id >= 0 && id < end_id() && by_id_[static_cast<std::size_t>(id)] != nullptr;
}

std::string_view Vocabulary::token(std::int64_t id) const {
  return has(id) ? std::string_view(*by_id_[static_cast<std::size_t>(id)]) : std::string_view();
}

void TokenTrie::add(std::string_view text, std::int32_t value) {
  if (text.empty()) return;
  starts_[static_cast<unsigned char>(text[0])] = true;
  std::int32_t node = 0;
  for (const char c : text) {
    const std::uint64_t key = (static_cast<std::uint64_t>(node) << 8) | static_cast<unsigned char>(c);
    const auto [it, is_new] = edges_.try_emplace(key, static_cast<std::int32_t>(values_.size()));
    if (is_new) values_.push_back(-1);
    node = it->second;
  }
  std::int32_t& stored = values_[static_cast<std::size_t>(node)];
  if (stored < 0) stored = value;
}

TokenTrie::Match TokenTrie::longest(std::string_view text, std::size_t pos) const {
  Match best;
  if (!starts_[static_cast<unsigned char>(text[pos])]) return best;
  std::int32_t node = 0;
  for (std::size_t i = pos; i < text.size(); ++i) {
    const auto it =
        edges_.find((static_cast<std::uint64_t>(node) << 8) | static_cast<unsigned char>(text[i]));
    if (it == edges_.end()) break;
    node = it->second;
    if (const std::int32_t value = values_[static_cast<std::size_t>(node)]; value >= 0)
      best = {i + 1 - pos, value};
  }
  return best;
}

}  // namespace llava
