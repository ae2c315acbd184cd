#pragma once
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace llava {

/// SentencePiece's BPE: neighbours are joined in the order of the joined piece's score, the leftmost first
/// among equals. Used by .model files and by "llama" vocabularies of GGUF.
class ScoreMerger {
 public:
  struct Symbol {
    std::string_view text;
    bool frozen = false;  ///< takes no part in merges (user-defined pieces)
  };
  struct Found {
    bool found = false;
    float score = 0;
  };
  /// The piece with a text, if it may come out of a merge.
  using Find = std::function<Found(std::string_view)>;

  /// Merges in place; the symbols are consecutive parts of one string. O(n log n).
  static void merge(std::vector<Symbol>& symbols, const Find& find);
};

}  // namespace llava
