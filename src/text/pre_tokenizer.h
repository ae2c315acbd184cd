#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/split_scanner.h"

namespace llava {

/// A text cut into pieces; the pieces are never empty and in order.
struct PieceList {
  struct Range {
    std::size_t begin, end;
  };
  std::string text;
  std::vector<Range> ranges;
  bool at_start = false;  ///< the first piece stands at the very start of the user's text

  /// One piece; none if `text` is empty.
  static PieceList whole(std::string text, bool at_start);
  std::string_view piece(std::size_t i) const {
    return std::string_view(text).substr(ranges[i].begin, ranges[i].end - ranges[i].begin);
  }
};

/// The `pre_tokenizer` of a tokenizer.json: cuts text into words. Null leaves the text whole.
/// Known: Split, ByteLevel, Metaspace, Digits, WhitespaceSplit, Sequence.
class PreTokenizer {
 public:
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  class Step {
   public:
    virtual ~Step() = default;
    virtual void apply(PieceList& pieces) const = 0;
  };

  PreTokenizer() = default;
  /// Error{kUnsupported} names an unknown type or regex.
  static PreTokenizer from_json(const Json& pre_tokenizer);

  void add_split(SplitScanner scanner, Behavior behavior, bool invert);
  void add_byte_level(bool add_prefix_space, bool use_regex);

  void apply(PieceList& pieces) const;

 private:
  void add_steps(const Json& pre_tokenizer);
  void add_step(std::unique_ptr<const Step> step);
  std::vector<std::unique_ptr<const Step>> steps_;
};

}  // namespace llava
