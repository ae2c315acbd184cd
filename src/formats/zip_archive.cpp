#include "formats/zip_archive.h"

#include <algorithm>

#include "base/error.h"
#include "formats/byte_reader.h"

/// Source: PKWARE APPNOTE 6.3.9, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14–4.3.16
/// (ends), 4.5.3 (zip64).
namespace llava {

namespace {

constexpr std::uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50;
constexpr std::uint32_t kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr std::size_t kEndBytes = 22, kLocatorBytes = 20, kMaxComment = 65'535;
constexpr std::uint64_t kMaxEntries = 1'000'000;

struct Directory {
  std::uint64_t entries = 0, size = 0, offset = 0;
};

struct CentralEntry {
  std::string name;
  std::uint16_t flags = 0, method = 0;
  std::uint64_t compressed = 0, size = 0, offset = 0;
};

std::size_t find_end(std::span<const std::byte> bytes, const std::string& what) {
  if (bytes.size() >= kEndBytes) {
    const std::size_t last = bytes.size() - kEndBytes;
    const std::size_t first = last - std::min(last, kMaxComment);
    for (std::size_t at = last + 1; at-- > first;) {
      std::uint32_t signature;
      std::memcpy(&signature, bytes.data() + at, sizeof(signature));
      if (signature == kEnd) return at;
    }
  }
  fail(ErrorKind::kFormat, "{}: the end of the zip directory is missing (truncated file?)", what);
}

Directory read_end64(ByteReader& reader, std::size_t end_at) {
  reader.seek(end_at - kLocatorBytes);
  reader.read<std::uint32_t>();  // signature, seen by the caller
  reader.read<std::uint32_t>();  // disk
  const auto at = reader.read<std::uint64_t>();
  if (at > end_at) fail(ErrorKind::kFormat, "{}: bad zip64 locator", reader.what());
  reader.seek(at);
  if (reader.read<std::uint32_t>() != kEnd64)
    fail(ErrorKind::kFormat, "{}: bad zip64 directory end", reader.what());
  reader.take(8 + 2 + 2 + 4 + 4 + 8);  // record size, versions, disks, entries on this disk
  Directory directory;
  directory.entries = reader.read<std::uint64_t>();
  directory.size = reader.read<std::uint64_t>();
  directory.offset = reader.read<std::uint64_t>();
  return directory;
}

Directory read_directory_end(std::span<const std::byte> bytes, const std::string& what) {
  const std::size_t end_at = find_end(bytes, what);
  ByteReader reader(bytes, what);
  reader.seek(end_at + 10);
  Directory directory;
  directory.entries = reader.read<std::uint16_t>();
  directory.size = reader.read<std::uint32_t>();
  directory.offset = reader.read<std::uint32_t>();
  if (end_at >= kLocatorBytes) {
    reader.seek(end_at - kLocatorBytes);
    if (reader.read<std::uint32_t>() == kEnd64Locator) directory = read_end64(reader, end_at);
  }
  if (directory.entries > kMaxEntries || directory.offset > end_at ||
      directory.size > end_at - directory.offset)
    fail(ErrorKind::kFormat, "{}: the zip directory does not fit the file", what);
  return directory;
}

/// The zip64 extra field replaces those of size, compressed size and offset that hold all ones, in this
/// order.
void apply_zip64(std::span<const std::byte> extra, CentralEntry& entry, const std::string& what) {
  ByteReader reader(extra, what + ": zip extra field");
  while (reader.remaining() >= 4) {
    const auto id = reader.read<std::uint16_t>();
    ByteReader field(reader.take(reader.read<std::uint16_t>()), what + ": zip64 field");
    if (id != 1) continue;
    for (std::uint64_t* value : {&entry.size, &entry.compressed, &entry.offset})
      if (*value == 0xFFFFFFFF) *value = field.read<std::uint64_t>();
  }
}

CentralEntry read_central(ByteReader& reader) {
  if (reader.read<std::uint32_t>() != kCentralHeader)
    fail(ErrorKind::kFormat, "{}: bad zip directory", reader.what());
  CentralEntry entry;
  reader.take(4);  // versions
  entry.flags = reader.read<std::uint16_t>();
  entry.method = reader.read<std::uint16_t>();
  reader.take(4 + 4);  // time, CRC
  entry.compressed = reader.read<std::uint32_t>();
  entry.size = reader.read<std::uint32_t>();
  const auto name_size = reader.read<std::uint16_t>();
  const auto extra_size = reader.read<std::uint16_t>();
  const auto comment_size = reader.read<std::uint16_t>();
  reader.take(2 + 2 + 4);  // disk, attributes
  entry.offset = reader.read<std::uint32_t>();
  entry.name = reader.text(name_size);
  apply_zip64(reader.take(extra_size), entry, reader.what());
  reader.take(comment_size);
  return entry;
}

std::span<const std::byte> locate(std::span<const std::byte> bytes, const CentralEntry& entry,
                                  std::uint64_t limit, const std::string& what) {
  const std::string where = what + ": zip entry " + printable(entry.name);
  ByteReader reader(bytes.first(limit), where);
  reader.seek(std::min<std::uint64_t>(entry.offset, limit));
  if (reader.read<std::uint32_t>() != kLocalHeader) fail(ErrorKind::kFormat, "{}: bad local header", where);
  reader.take(2 + 2);  // version, flags
  if (reader.read<std::uint16_t>() != entry.method)
    fail(ErrorKind::kFormat, "{}: its two headers disagree", where);
  reader.take(4 + 4 + 4 + 4);  // time, CRC and sizes: the directory's count
  const auto name_size = reader.read<std::uint16_t>();
  const auto extra_size = reader.read<std::uint16_t>();
  if (reader.text(name_size) != entry.name) fail(ErrorKind::kFormat, "{}: its two headers disagree", where);
  reader.take(extra_size);
  return reader.take(entry.compressed);
}

}  // namespace

ZipArchive::ZipArchive(std::span<const std::byte> bytes, const std::string& what) : what_(what) {
  const Directory directory = read_directory_end(bytes, what);
  ByteReader reader(bytes.subspan(directory.offset, directory.size), what + ": zip directory");
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    const CentralEntry entry = read_central(reader);
    const bool is_stored = entry.method == 0 && (entry.flags & 1) == 0 && entry.compressed == entry.size;
    if (!entries_.emplace(entry.name, Entry{locate(bytes, entry, directory.offset, what), is_stored})
             .second)
      fail(ErrorKind::kFormat, "{}: zip entry {} occurs twice", what, printable(entry.name));
    names_.push_back(entry.name);
  }
}

std::optional<std::span<const std::byte>> ZipArchive::find(const std::string& name) const {
  const auto it = entries_.find(name);
  if (it == entries_.end()) return std::nullopt;
  if (!it->second.is_stored)
    fail(ErrorKind::kUnsupported,
         "{}: zip entry {} is compressed or encrypted; torch.save stores its records", what_,
         printable(name));
  return it->second.content;
}

}  // namespace llava
