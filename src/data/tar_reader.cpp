#include "data/tar_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "base/error.h"

namespace llava {

namespace {

constexpr std::uint64_t kBlock = 512;
constexpr std::uint64_t kLongestName = 64 << 10;

using TarHeader = std::array<char, kBlock>;

std::string_view field(const TarHeader& header, std::size_t begin, std::size_t size) {
  const std::string_view text(header.data() + begin, size);
  return text.substr(0, text.find('\0'));
}

/// An octal number, or for the sizes of GNU tar a binary one; nullopt for anything else.
std::optional<std::uint64_t> number(const TarHeader& header, std::size_t begin, std::size_t size) {
  const auto first = static_cast<std::uint8_t>(header[begin]);
  std::uint64_t value = 0;
  if (first == 0x80) {
    for (std::size_t i = begin + size - 8; i < begin + size; ++i)
      value = value << 8 | static_cast<std::uint8_t>(header[i]);
    return value;
  }
  std::string_view text = field(header, begin, size);
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 8);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool checksum_fits(const TarHeader& header) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i)
    sum += i >= 148 && i < 156 ? 32 : static_cast<std::uint8_t>(header[i]);
  return number(header, 148, 8) == sum;
}

std::string name_of(const TarHeader& header) {
  const std::string_view name = field(header, 0, 100), prefix = field(header, 345, 155);
  const bool ustar = field(header, 257, 5) == "ustar" && header[262] == '\0';
  return ustar && !prefix.empty() ? fmt::format("{}/{}", prefix, name) : std::string(name);
}

/// What a pax header ("17 path=some.jpg\n"…) says of the next member.
struct Pax {
  std::optional<std::string> path;
  std::optional<std::uint64_t> size;
};

Pax read_pax(std::string_view text) {
  Pax pax;
  while (!text.empty()) {
    std::size_t length = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
    const auto digits = static_cast<std::size_t>(end - text.data());
    if (error != std::errc() || length <= digits + 1 || length > text.size()) break;
    const std::string_view line = text.substr(digits + 1, length - digits - 2);
    const std::size_t equals = line.find('=');
    const std::string_view key = line.substr(0, equals),
                           value = equals == std::string_view::npos ? "" : line.substr(equals + 1);
    if (key == "path") pax.path = std::string(value);
    if (key == "size") {
      std::uint64_t size = 0;
      if (std::from_chars(value.data(), value.data() + value.size(), size).ec == std::errc())
        pax.size = size;
    }
    text.remove_prefix(length);
  }
  return pax;
}

std::uint64_t padded(std::uint64_t size) { return (size + kBlock - 1) / kBlock * kBlock; }

}  // namespace

TarReader::TarReader(std::filesystem::path path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat facts {};
  if (fd_ < 0 || ::fstat(fd_, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    if (fd_ >= 0) ::close(fd_);
    fail(ErrorKind::kInput, "{}: cannot be opened as a file", path_.string());
  }
  size_ = static_cast<std::uint64_t>(facts.st_size);
}

TarReader::~TarReader() { ::close(fd_); }

void TarReader::read_at(std::uint64_t offset, char* out, std::size_t size) const {
  while (size > 0) {
    const ssize_t n = ::pread(fd_, out, size, static_cast<off_t>(offset));
    if (n <= 0) fail(ErrorKind::kInput, "{}: cannot be read at byte {}", path_.string(), offset);
    out += n;
    offset += static_cast<std::uint64_t>(n);
    size -= static_cast<std::size_t>(n);
  }
}

std::optional<TarMember> TarReader::next(std::uint64_t offset) const {
  TarMember member;
  std::uint64_t first_header = UINT64_MAX, pax_size = UINT64_MAX;  // UINT64_MAX: none yet
  for (std::uint64_t at = offset; at < size_;) {
    if (size_ - at < kBlock)
      fail(ErrorKind::kFormat, "{}: cut off in a header at byte {}", path_.string(), at);
    TarHeader header;
    read_at(at, header.data(), kBlock);
    if (std::all_of(header.begin(), header.end(), [](char c) { return c == '\0'; })) return std::nullopt;
    if (!checksum_fits(header))
      fail(ErrorKind::kFormat, "{}: no tar header at byte {}", path_.string(), at);
    const char type = header[156];
    const auto own_size = number(header, 124, 12);
    const std::uint64_t size =
        pax_size != UINT64_MAX && (type == '0' || type == '\0') ? pax_size : own_size.value_or(UINT64_MAX);
    const std::uint64_t data = at + kBlock;
    if (size > size_ - data)
      fail(ErrorKind::kFormat,
           "{}: the member at byte {} reaches over the file's end: the archive is cut off", path_.string(),
           at);
    if (first_header == UINT64_MAX) first_header = at;
    at = std::min(data + padded(size), size_);
    if (type == 'L' || type == 'x') {
      if (size > kLongestName)
        fail(ErrorKind::kFormat, "{}: a name of {} bytes at byte {}", path_.string(), size, data);
      std::string text(size, '\0');
      read_at(data, text.data(), size);
      if (type == 'L') {
        member.name = text.substr(0, text.find('\0'));
      } else {
        Pax pax = read_pax(text);
        if (pax.path) member.name = std::move(*pax.path);
        pax_size = pax.size.value_or(UINT64_MAX);
      }
      continue;
    }
    if (type != '0' && type != '\0') {  // folders, links
      member.name.clear();
      first_header = pax_size = UINT64_MAX;
      continue;
    }
    if (member.name.empty()) member.name = name_of(header);
    member.header = first_header;
    member.data = data;
    member.size = size;
    member.end = at;
    return member;
  }
  return std::nullopt;
}

std::string TarReader::read(const TarMember& member, std::uint64_t max_bytes) const {
  if (member.size > max_bytes)
    fail(ErrorKind::kInput, "{}: {} has {} bytes, at most {} are allowed", path_.string(), member.name,
         member.size, max_bytes);
  std::string bytes(member.size, '\0');
  read_at(member.data, bytes.data(), bytes.size());
  return bytes;
}

}  // namespace llava
