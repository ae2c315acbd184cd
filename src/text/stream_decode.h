#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "text/tokenizer.h"

namespace llava {

/// The text of all ids through a fresh stream, so that decode() and streaming agree by construction.
inline std::string decode_all(TokenStream& stream, std::span<const std::int64_t> ids) {
  std::string out;
  for (const std::int64_t id : ids) stream.push(id, out);
  stream.flush(out);
  return out;
}

}  // namespace llava
