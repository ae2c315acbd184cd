#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace llava {

/// A cursor over hostile bytes, little-endian: every read is checked against the end and throws
/// Error{kFormat, "<what>: ends at byte …"} instead of leaving the span.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string what) : bytes_(bytes), what_(std::move(what)) {}

  std::size_t position() const { return position_; }
  std::size_t remaining() const { return bytes_.size() - position_; }
  const std::string& what() const { return what_; }

  void seek(std::size_t position) {
    if (position > bytes_.size()) truncated(position - bytes_.size());
    position_ = position;
  }

  std::span<const std::byte> take(std::size_t count) {
    if (count > remaining()) truncated(count);
    const auto part = bytes_.subspan(position_, count);
    position_ += count;
    return part;
  }

  std::string_view text(std::size_t count) {
    const auto part = take(count);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }

  template <class T>
  T read() {
    static_assert(std::is_arithmetic_v<T>);
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

 private:
  [[noreturn]] void truncated(std::size_t wanted) const {
    fail(ErrorKind::kFormat, "{}: truncated or corrupt: {} bytes wanted at byte {}, the data ends at {}",
         what_, wanted, position_, bytes_.size());
  }

  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  std::string what_;
};

/// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates).
bool is_utf8(std::string_view text);

/// `text` made safe for an error message: at most 80 bytes, other than printable ASCII and valid UTF-8 as
/// \xNN.
std::string printable(std::string_view text);

}  // namespace llava
