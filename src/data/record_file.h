#pragma once
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"

namespace llava {

/// A file of records: a JSON list, or one JSON object a line. Only the borders of the records are found on
/// opening, so a data set of any size stays on disk (mapped) and each record is parsed when it is asked
/// for.
class RecordFile {
 public:
  /// Error{kInput|kFormat} naming the file: missing, empty, neither a list nor lines of objects, an
  /// unfinished list.
  explicit RecordFile(const std::filesystem::path& path);
  std::size_t size() const { return records_.size(); }
  /// Error{kFormat} naming the file and the record's number if that record is not a JSON object.
  /// Thread-safe.
  Json record(std::size_t index) const;
  const std::filesystem::path& path() const { return path_; }
  std::string describe(std::size_t index) const;

 private:
  struct Span {
    std::size_t begin, end;
  };
  void find_list_items();
  void find_lines();

  std::filesystem::path path_;
  MappedFile file_;
  std::string_view text_;
  std::vector<Span> records_;
};

}  // namespace llava
