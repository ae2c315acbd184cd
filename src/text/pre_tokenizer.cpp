#include "text/pre_tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/json_parts.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace llava {
namespace {

using Behavior = PreTokenizer::Behavior;
constexpr std::size_t kMaxPreTokenizers = 64;

struct Part {
  std::size_t begin, end;
  bool is_match;
};

/// Joins or drops the parts of one piece as `behavior` says.
void arrange(std::vector<Part>& parts, Behavior behavior) {
  if (behavior == Behavior::kIsolated) return;
  if (behavior == Behavior::kRemoved) {
    std::erase_if(parts, [](const Part& part) { return part.is_match; });
    return;
  }
  const bool backwards = behavior == Behavior::kMergedWithNext;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Part> joined;
  for (const Part& part : parts) {
    const bool same = !joined.empty() && joined.back().is_match == part.is_match;
    const bool after_text = part.is_match && !joined.empty() && !joined.back().is_match;
    if (behavior == Behavior::kContiguous ? same : after_text) {
      Part& last = joined.back();
      last = {std::min(last.begin, part.begin), std::max(last.end, part.end), part.is_match};
    } else {
      joined.push_back(part);
    }
  }
  if (backwards) std::reverse(joined.begin(), joined.end());
  parts = std::move(joined);
}

/// Replaces every piece by the parts that `cut` finds in it.
template <class Cut>
void split_pieces(PieceList& pieces, Behavior behavior, Cut cut) {
  std::vector<PieceList::Range> ranges;
  std::vector<Part> parts;
  bool at_start = false;
  for (std::size_t i = 0; i < pieces.ranges.size(); ++i) {
    parts.clear();
    cut(pieces.piece(i), parts);
    arrange(parts, behavior);
    const std::size_t offset = pieces.ranges[i].begin;
    if (i == 0) at_start = pieces.at_start && !parts.empty() && parts[0].begin == 0;
    for (const Part& part : parts) ranges.push_back({offset + part.begin, offset + part.end});
  }
  pieces.ranges = std::move(ranges);
  pieces.at_start = at_start;
}

class SplitStep : public PreTokenizer::Step {
 public:
  SplitStep(SplitScanner scanner, Behavior behavior, bool invert)
      : scanner_(std::move(scanner)), behavior_(behavior), invert_(invert) {}

  void apply(PieceList& pieces) const override {
    split_pieces(pieces, behavior_, [this](std::string_view text, std::vector<Part>& parts) {
      std::size_t pos = 0;
      while (pos < text.size()) {
        const auto match = scanner_.next(text, pos);
        const std::size_t gap_end = match ? match->begin : text.size();
        if (gap_end > pos) parts.push_back({pos, gap_end, invert_});
        if (match) parts.push_back({match->begin, match->end, !invert_});
        pos = match ? match->end : text.size();
      }
    });
  }

 private:
  SplitScanner scanner_;
  Behavior behavior_;
  bool invert_;
};

/// Splits at the characters with a property.
class CharacterSplitStep : public PreTokenizer::Step {
 public:
  CharacterSplitStep(bool (*is)(char32_t), Behavior behavior) : is_(is), behavior_(behavior) {}

  void apply(PieceList& pieces) const override {
    split_pieces(pieces, behavior_, [this](std::string_view text, std::vector<Part>& parts) {
      for (std::size_t pos = 0; pos < text.size();) {
        const unicode::Step s = unicode::step(text, pos);
        const bool is_match = is_(s.code);
        if (!is_match && !parts.empty() && !parts.back().is_match)
          parts.back().end = pos + s.len;
        else
          parts.push_back({pos, pos + s.len, is_match});
        pos += s.len;
      }
    });
  }

 private:
  bool (*is_)(char32_t);
  Behavior behavior_;
};

/// Rewrites the pieces one by one into a new text.
template <class Rewrite>
void rewrite_pieces(PieceList& pieces, Rewrite rewrite) {
  std::string text;
  text.reserve(pieces.text.size() * 2);
  for (std::size_t i = 0; i < pieces.ranges.size(); ++i) {
    const std::size_t begin = text.size();
    rewrite(i, pieces.piece(i), text);
    pieces.ranges[i] = {begin, text.size()};
  }
  pieces.text = std::move(text);
}

class PrefixSpaceStep : public PreTokenizer::Step {
 public:
  void apply(PieceList& pieces) const override {
    rewrite_pieces(pieces, [](std::size_t, std::string_view piece, std::string& out) {
      if (!piece.starts_with(' ')) out.push_back(' ');
      out.append(piece);
    });
  }
};

class ByteLevelStep : public PreTokenizer::Step {
 public:
  void apply(PieceList& pieces) const override {
    rewrite_pieces(pieces, [](std::size_t, std::string_view piece, std::string& out) {
      for (const char c : piece) out.append(byte_level::to_char(static_cast<std::uint8_t>(c)));
    });
  }
};

class MetaspaceStep : public PreTokenizer::Step {
 public:
  enum class Prepend { kAlways, kFirst, kNever };
  MetaspaceStep(std::string replacement, Prepend prepend)
      : replacement_(std::move(replacement)), prepend_(prepend) {}

  void apply(PieceList& pieces) const override {
    const bool at_start = pieces.at_start;
    rewrite_pieces(pieces, [&](std::size_t i, std::string_view piece, std::string& out) {
      const bool wanted =
          prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && at_start && i == 0);
      if (wanted && !piece.starts_with(' ') && !piece.starts_with(replacement_)) out.append(replacement_);
      out.append(replace_all(piece, " ", replacement_));
    });
  }

 private:
  std::string replacement_;
  Prepend prepend_;
};

Behavior behavior_from_json(const Json& split) {
  const auto name = json_get<std::string>(split, "behavior", "pre_tokenizer Split");
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  fail(ErrorKind::kUnsupported, "pre_tokenizer Split: behavior \"{}\"", name);
}

SplitScanner scanner_from_json(const Json& split) {
  const auto it = split.find("pattern");
  if (it != split.end() && it->is_object() && it->contains("Regex"))
    return SplitScanner::from_regex(json_get<std::string>(*it, "Regex", "pre_tokenizer Split"));
  return SplitScanner::literal(string_pattern(split, "pre_tokenizer Split"));
}

MetaspaceStep::Prepend prepend_from_json(const Json& metaspace) {
  const auto scheme =
      json_get_or<std::string>(metaspace, "prepend_scheme", "always", "pre_tokenizer Metaspace");
  const bool refused = !json_get_or<bool>(metaspace, "add_prefix_space", true, "pre_tokenizer Metaspace");
  if (refused && scheme != "never")
    fail(ErrorKind::kFormat,
         "pre_tokenizer Metaspace: add_prefix_space false contradicts prepend_scheme \"{}\"", scheme);
  if (scheme == "always") return MetaspaceStep::Prepend::kAlways;
  if (scheme == "first") return MetaspaceStep::Prepend::kFirst;
  if (scheme == "never") return MetaspaceStep::Prepend::kNever;
  fail(ErrorKind::kUnsupported, "pre_tokenizer Metaspace: prepend_scheme \"{}\"", scheme);
}

}  // namespace

PieceList PieceList::whole(std::string text, bool at_start) {
  PieceList out;
  out.text = std::move(text);
  out.at_start = at_start;
  if (!out.text.empty()) out.ranges.push_back({0, out.text.size()});
  return out;
}

PreTokenizer PreTokenizer::from_json(const Json& pre_tokenizer) {
  PreTokenizer out;
  if (!pre_tokenizer.is_null()) out.add_steps(pre_tokenizer);
  return out;
}

void PreTokenizer::add_step(std::unique_ptr<const Step> step) {
  if (steps_.size() == kMaxPreTokenizers)
    fail(ErrorKind::kFormat, "pre_tokenizer: more than {} steps", kMaxPreTokenizers);
  steps_.push_back(std::move(step));
}

void PreTokenizer::add_split(SplitScanner scanner, Behavior behavior, bool invert) {
  add_step(std::make_unique<SplitStep>(std::move(scanner), behavior, invert));
}

void PreTokenizer::add_byte_level(bool add_prefix_space, bool use_regex) {
  if (add_prefix_space) add_step(std::make_unique<PrefixSpaceStep>());
  if (use_regex) add_split(SplitScanner(SplitScanner::Kind::kGpt2), Behavior::kIsolated, false);
  add_step(std::make_unique<ByteLevelStep>());
}

void PreTokenizer::add_steps(const Json& json) {
  const auto type = json_get<std::string>(json, "type", "pre_tokenizer");
  const std::string what = fmt::format("pre_tokenizer {}", type);
  if (type == "Sequence") {
    for (const Json& part : json_array(json, "pretokenizers", what)) add_steps(part);
  } else if (type == "Split") {
    add_split(scanner_from_json(json), behavior_from_json(json),
              json_get_or<bool>(json, "invert", false, what));
  } else if (type == "ByteLevel") {
    add_byte_level(json_get_or<bool>(json, "add_prefix_space", true, what),
                   json_get_or<bool>(json, "use_regex", true, what));
  } else if (type == "Metaspace") {
    const auto replacement = json_get<std::string>(json, "replacement", what);
    if (replacement.empty() || unicode::step(replacement, 0).len != replacement.size())
      fail(ErrorKind::kFormat, "{}: \"replacement\" must be one character", what);
    add_step(std::make_unique<MetaspaceStep>(replacement, prepend_from_json(json)));
    if (json_get_or<bool>(json, "split", true, what))
      add_split(SplitScanner::literal(replacement), Behavior::kMergedWithNext, false);
  } else if (type == "Digits") {
    const bool each = json_get_or<bool>(json, "individual_digits", false, what);
    add_step(std::make_unique<CharacterSplitStep>(unicode::is_numeric,
                                                  each ? Behavior::kIsolated : Behavior::kContiguous));
  } else if (type == "WhitespaceSplit") {
    add_step(std::make_unique<CharacterSplitStep>(unicode::is_space, Behavior::kRemoved));
  } else {
    fail(ErrorKind::kUnsupported,
         "pre_tokenizer \"{}\" (known: Split, ByteLevel, Metaspace, Digits, WhitespaceSplit, Sequence)",
         type);
  }
}

void PreTokenizer::apply(PieceList& pieces) const {
  for (const auto& step : steps_) step->apply(pieces);
}

}  // namespace llava
