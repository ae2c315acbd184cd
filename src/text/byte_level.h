#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

/// The byte <-> printable character map of byte-level BPE (GPT-2): every byte is written as one character
/// of U+0021..U+0143.
namespace llava::byte_level {

/// The character that stands for `byte`, as UTF-8.
std::string_view to_char(std::uint8_t byte);
/// The byte that character `c` stands for, or -1.
int to_byte(char32_t c);
/// Appends the bytes that `token` stands for; a token with a character outside the map is appended as it
/// is.
void append_bytes(std::string& out, std::string_view token);

}  // namespace llava::byte_level
