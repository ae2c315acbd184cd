#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace llava {

/// A regular file in a tar archive.
struct TarMember {
  std::string name;
  std::uint64_t header = 0;  ///< where its first header block begins
  std::uint64_t data = 0, size = 0;
  std::uint64_t end = 0;  ///< where the next member's header begins
};

/// Walks over the headers of a tar archive (ustar, GNU long names, pax paths and sizes) without reading
/// what is between them. Hostile archives give Errors: every position is checked against the file's size,
/// names are bounded.
class TarReader {
 public:
  /// Error{kInput} if the file cannot be opened.
  explicit TarReader(std::filesystem::path path);
  ~TarReader();
  TarReader(const TarReader&) = delete;
  TarReader& operator=(const TarReader&) = delete;

  /// The first regular file whose header stands at or after `offset`; none at the archive's end.
  /// Error{kFormat} for headers with a wrong checksum and members that reach over the file's end.
  std::optional<TarMember> next(std::uint64_t offset) const;
  /// A member's bytes. Error{kInput} above `max_bytes`.
  std::string read(const TarMember& member, std::uint64_t max_bytes) const;
  std::uint64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  void read_at(std::uint64_t offset, char* out, std::size_t size) const;

  std::filesystem::path path_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace llava
