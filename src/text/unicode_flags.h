#pragma once
#include <cstddef>
#include <cstdint>

#include "text/unicode_tables.h"

namespace llava::unicode {

namespace tables = unicode_tables;

/// The properties of a character, as bits of the generated tables; 0 for what is no character.
inline std::uint8_t flags(char32_t c) {
  if (c >= 0x110000) return 0;
  return tables::kFlags[std::size_t{tables::kBlockIndex[c >> 8]} * 256 + (c & 0xFF)];
}

}  // namespace llava::unicode
