#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "text/vocabulary.h"

namespace llava {

/// Byte-pair encoding by ranked merges, as the `BPE` model of tokenizer.json defines it.
class BpeModel {
 public:
  struct Options {
    std::string unk_token;       ///< empty: characters that are not in the vocabulary are dropped
    bool fuse_unk = false;       ///< a run of unknown characters is one unk_token
    bool byte_fallback = false;  ///< unknown characters become <0xXX> tokens where the vocabulary has them
    bool ignore_merges =
        false;  ///< a word that is in the vocabulary is that token, whatever the merges say
  };

  /// `merges` in rank order. Error{kFormat} if a merge names or makes a token that is not in `vocabulary`.
  BpeModel(Vocabulary vocabulary, std::span<const std::pair<std::string, std::string>> merges,
           Options options);

  /// Appends the ids of one word (a piece of the pre-tokenizer). O(n log n).
  void encode(std::string_view word, std::vector<std::int64_t>& out) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  const Options& options() const { return options_; }

 private:
  struct Merge {
    std::uint64_t pair = kNoPair;
    std::int32_t rank = 0, result = 0;
  };
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};

  void add_merge(std::string_view left, std::string_view right, std::int32_t rank);
  const Merge* find_merge(std::int64_t left, std::int64_t right) const;
  void first_symbols(std::string_view word, std::vector<std::int64_t>& out) const;
  bool append_bytes_of(std::string_view character, std::vector<std::int64_t>& out) const;
  void merge_short(std::vector<std::int64_t>& ids, std::size_t begin) const;
  void merge_long(std::vector<std::int64_t>& ids, std::size_t begin) const;

  Vocabulary vocabulary_;
  Options options_;
  std::vector<Merge> merges_;  ///< open addressing, a power of two
  std::int32_t unk_id_ = -1;
  std::int32_t byte_ids_[256];
};

/// The `model` object of a tokenizer.json. Error{kUnsupported} for other models than BPE and for options we
/// lack.
BpeModel bpe_from_json(const Json& model);

}  // namespace llava
