#pragma once
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace llava {

inline constexpr std::int64_t kMaxTokenId =
    (std::int64_t{1} << 21) - 1;  ///< larger ids are refused as hostile

/// Pieces <-> ids. Ids need not be contiguous.
class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;  // no copies: the index points into storage_

  /// A later piece with the same text or id replaces the earlier one in that direction. Error{kFormat}
  /// outside 0..kMaxTokenId.
  void add(std::string_view token, std::int64_t id);
  std::int32_t find(std::string_view token) const;  ///< -1 if absent
  bool has(std::int64_t id) const;
  std::string_view token(std::int64_t id) const;                                    ///< empty if absent
  std::int64_t end_id() const { return static_cast<std::int64_t>(by_id_.size()); }  ///< largest id + 1
  std::size_t num_tokens() const { return ids_.size(); }                            ///< distinct texts
  std::size_t max_token_len() const { return max_token_len_; }                      ///< bytes

 private:
  std::deque<std::string> storage_;
  std::unordered_map<std::string_view, std::int32_t> ids_;
  std::vector<const std::string*> by_id_;
  std::size_t max_token_len_ = 0;
};

/// A prefix tree over bytes, for finding the longest of many strings at a position.
class TokenTrie {
 public:
  void add(std::string_view text,
           std::int32_t value);  ///< empty texts are left out; the first value of a text stays
  struct Match {
    std::size_t len = 0;  ///< 0: nothing begins here
    std::int32_t value = -1;
  };
  Match longest(std::string_view text, std::size_t pos) const;
  bool empty() const { return values_.size() <= 1; }

 private:
  std::vector<std::int32_t> values_ =
      std::vector<std::int32_t>(1, -1);                    ///< of each node; -1: no string ends here
  std::unordered_map<std::uint64_t, std::int32_t> edges_;  ///< (node << 8 | byte) -> node
  bool starts_[256] = {};
};

}  // namespace llava
