#pragma once
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace llava {

/// The directory of a zip file whose entries are stored, as torch.save writes them (zip64 included).
/// Compressed or encrypted entries are refused; every entry's local header and extent is checked.
class ZipArchive {
 public:
  /// `bytes` must outlive the archive; `what` names the file in errors. Error{kFormat|kUnsupported}.
  ZipArchive(std::span<const std::byte> bytes, const std::string& what);

  const std::vector<std::string>& names() const { return names_; }
  /// The content of `name`; nullopt if there is none. Error{kUnsupported} if it is compressed or encrypted.
  std::optional<std::span<const std::byte>> find(const std::string& name) const;

 private:
  struct Entry {
    std::span<const std::byte> content;
    bool is_stored = false;
  };
  std::string what_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, Entry> entries_;
};

}  // namespace llava
