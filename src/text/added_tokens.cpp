#include "text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/unicode.h"

namespace llava {
namespace {

constexpr std::size_t kMaxContent =
    512;  // bounds the search: at every position at most this many bytes are looked at
constexpr std::size_t kMaxAddedTokens = 200000;

std::size_t last_character(std::string_view text) {
  std::size_t pos = text.size() - 1;
  while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80) --pos;
  return pos;
}

bool ends_with_word(std::string_view text) {
  return !text.empty() && unicode::is_word(unicode::at(text, last_character(text)));
}
bool starts_with_word(std::string_view text) {
  return !text.empty() && unicode::is_word(unicode::at(text, 0));
}

std::size_t spaces_at_start(std::string_view text) {
  std::size_t pos = 0;
  while (pos < text.size() && unicode::is_space(unicode::at(text, pos)))
    pos += unicode::step(text, pos).len;
  return pos;
}

std::size_t without_spaces_at_end(std::string_view text) {
  while (!text.empty() && unicode::is_space(unicode::at(text, last_character(text))))
    text = text.substr(0, last_character(text));
  return text.size();
}

}  // namespace

AddedToken added_token_from_json(const Json& json, std::string_view what) {
  AddedToken token;
  token.content = json_get<std::string>(json, "content", what);
  token.special = json_get_or<bool>(json, "special", false, what);
  token.normalized = json_get_or<bool>(json, "normalized", !token.special, what);
  token.single_word = json_get_or<bool>(json, "single_word", false, what);
  token.lstrip = json_get_or<bool>(json, "lstrip", false, what);
  token.rstrip = json_get_or<bool>(json, "rstrip", false, what);
  return token;
}

void AddedTokens::add(AddedToken token) {
  if (token.content.size() > kMaxContent)
    fail(ErrorKind::kFormat, "added token \"{}…\" is longer than {} bytes", token.content.substr(0, 40),
         kMaxContent);
  if (token.id < 0 || token.id > kMaxTokenId)
    fail(ErrorKind::kFormat, "added token \"{}\": id {} is outside 0..{}", token.content, token.id,
         kMaxTokenId);
  if (tokens_.size() == kMaxAddedTokens)
    fail(ErrorKind::kFormat, "more than {} added tokens", kMaxAddedTokens);
  end_id_ = std::max(end_id_, token.id + 1);
  const auto same = by_content_.find(token.content);
  if (same != by_content_.end() && tokens_[same->second].id == token.id) {
    tokens_[same->second] = std::move(token);
    return;
  }
  by_content_[token.content] = tokens_.size();
  by_id_[token.id] = tokens_.size();
  tokens_.push_back(std::move(token));
}

void AddedTokens::finish(const Normalizer& normalizer) {
  raw_ = normalized_ = TokenTrie();
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (by_content_.at(token.content) != i || by_id_.at(token.id) != i)
      continue;  // replaced by a later one
    if (token.normalized)
      normalized_.add(normalizer.apply(token.content), static_cast<std::int32_t>(i));
    else
      raw_.add(token.content, static_cast<std::int32_t>(i));
  }
}

template <class Text, class Token>
void AddedTokens::split_by(const TokenTrie& trie, std::string_view text, bool parse_special, Text on_text,
                           Token on_token) const {
  std::size_t done = 0;
  for (std::size_t pos = 0; !trie.empty() && pos < text.size();) {
    const TokenTrie::Match match = trie.longest(text, pos);
    if (match.len == 0) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(match.value)];
    std::size_t begin = pos, end = pos + match.len;
    pos = end;
    if (!parse_special && token.special) continue;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end))))
      continue;
    if (begin < done) continue;  // begins inside the white space that the token before has taken
    if (token.lstrip) begin = std::max(done, without_spaces_at_end(text.substr(0, begin)));
    if (token.rstrip) end += spaces_at_start(text.substr(end));
    if (begin > done) on_text(text.substr(done, begin - done), done == 0);
    on_token(token.id);
    done = end;
  }
  if (done < text.size()) on_text(text.substr(done), done == 0);
}

void AddedTokens::split(std::string_view text, bool parse_special, const Normalizer& normalizer,
                        const Visit& visit) const {
  const auto on_token = [&](std::int64_t id) { visit(id, {}, false); };
  const auto on_raw_text = [&](std::string_view raw, bool raw_at_start) {
    const std::string normal = normalizer.apply(raw);
    split_by(
        normalized_, normal, parse_special,
        [&](std::string_view part, bool at_start) {
          visit(-1, std::string(part), raw_at_start && at_start);
        },
        on_token);
  };
  split_by(raw_, text, parse_special, on_raw_text, on_token);
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto it = by_content_.find(std::string(content));
  return it == by_content_.end() ? nullptr : &tokens_[it->second];
}

const AddedToken* AddedTokens::find(std::int64_t id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &tokens_[it->second];
}

bool AddedTokens::is_special(std::int64_t id) const {
  const AddedToken* token = find(id);
  return token != nullptr && token->special;
}

}  // namespace llava
