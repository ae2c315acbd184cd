#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

namespace llava {

/// The directory of a zip file whose entries are stored, as torch.save writes them (zip64 included).
/// Compressed or encrypted entries are refused; every entry's local header and extent is checked.
class ZipArchive {
 public:
  /// `bytes` must outlive the archive; `what` names the file in errors. Error{kFormat|kUnsupported}.
  ZipArchive(std::span<const std::byte> bytes, const std::string& what);

  using Entries = std::unordered_map<std::string, std::span<const std::byte>>;
  const Entries& entries() const { return entries_; }
  /// The content of `name`, or nullptr.
  const std::span<const std::byte>* find(const std::string& name) const;

 private:
  Entries entries_;
};

}  // namespace llava
