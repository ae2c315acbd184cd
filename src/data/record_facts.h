#pragma once
#include <cstdint>
#include <string_view>

#include "base/json.h"

namespace llava {

/// What the samplers know of a record without loading it.
struct RecordFacts {
  std::int32_t words =
      0;  ///< of all turns, split at white space as Python's str.split() does; at most kMostWords
  bool has_media = false;  ///< "image", "images" or "video" names something
  bool operator==(const RecordFacts&) const = default;
};

inline constexpr std::int32_t kMostWords = 32767;

/// Facts of a record from its JSON text in one pass, without building values: at most a few times slower
/// than reading memory. Text that is no JSON object gives what was found up to there (loading it is an
/// Error anyway).
RecordFacts scan_record(std::string_view json);

/// The same of a parsed record.
RecordFacts record_facts(const Json& record);

/// Words of a text in UTF-8.
std::int64_t count_words(std::string_view text);

}  // namespace llava
