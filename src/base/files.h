#pragma once
#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace llava {

/// The whole file as bytes. Error{kInput} if it is missing, not a regular file, unreadable or larger than
/// `max_bytes`.
std::string read_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{1} << 30);

/// Replaces `path` so that a crash leaves either the old or the new content: writes a temporary file in the
/// same folder, fsyncs it, renames it, fsyncs the folder. Error{kResource} names the step that failed; the
/// old file stays.
void write_file_atomic(const std::filesystem::path& path, std::string_view bytes);

/// As above; `write` gets the temporary path and must create the file (for large streams).
void write_file_atomic(const std::filesystem::path& path,
                       const std::function<void(const std::filesystem::path&)>& write);

/// A read-only memory map of a whole file; pages are shared with the page cache, so nothing is copied.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  MappedFile(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::size_t size() const { return size_; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace llava
