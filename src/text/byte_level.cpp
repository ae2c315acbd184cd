#include "text/byte_level.h"

#include "text/unicode.h"

namespace llava::byte_level {
namespace {

struct Map {
  std::array<std::string, 256> chars;
  std::array<std::int16_t, 0x144> bytes;
};

/// Printable Latin-1 bytes stand for themselves, the rest are numbered from U+0100 in byte order.
Map make_map() {
  Map map;
  map.bytes.fill(-1);
  char32_t next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    const char32_t c = printable ? static_cast<char32_t>(b) : next++;
    map.chars[static_cast<std::size_t>(b)] = unicode::encode(c);
    map.bytes[c] = static_cast<std::int16_t>(b);
  }
  return map;
}

const Map& map() {
  static const Map instance = make_map();
  return instance;
}

}  // namespace

std::string_view to_char(std::uint8_t byte) { return map().chars[byte]; }

int to_byte(char32_t c) { return c < map().bytes.size() ? map().bytes[c] : -1; }

void append_bytes(std::string& out, std::string_view token) {
  const std::size_t begin = out.size();
  for (std::size_t pos = 0; pos < token.size();) {
    const unicode::Step s = unicode::step(token, pos);
    const int byte = to_byte(s.code);
    if (byte < 0) {
      out.resize(begin);
      out.append(token);
      return;
    }
    out.push_back(static_cast<char>(byte));
    pos += s.len;
  }
}

}  // namespace llava::byte_level
