#pragma once
#include <cstdint>
#include <span>
#include <string_view>

namespace llava {

/// A fast 64-bit content hash, the same on every machine; for cache keys, not against forgery. Hashes chain
/// through `seed`.
std::uint64_t hash_bytes(std::span<const std::byte> bytes, std::uint64_t seed = 0);
std::uint64_t hash_text(std::string_view text, std::uint64_t seed = 0);

}  // namespace llava
