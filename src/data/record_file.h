#pragma once
#include <cstddef>
#include <filesystem>
#include <string>

#include "data/record_index.h"
#include "data/record_source.h"

namespace llava {

/// A file of records: a JSON list, or one JSON object a line. On opening, only the borders of the records
/// and their facts are found, by several threads where there are lines; a record is read and parsed when it
/// is asked for. So a data set of any size costs six bytes a record.
class RecordFile : public RecordSource {
 public:
  /// `index_folder`: where the index is kept for the next time; empty: nowhere. Error{kInput|kFormat}
  /// naming the file: missing, empty, neither a list nor lines of objects, an unfinished list.
  explicit RecordFile(const std::filesystem::path& path, const std::filesystem::path& index_folder = {});
  ~RecordFile() override;
  RecordFile(const RecordFile&) = delete;
  RecordFile& operator=(const RecordFile&) = delete;
  std::size_t size() const override { return index_.size(); }
  RecordFacts facts(std::size_t index) const override { return index_.facts(index); }
  RawRecord load(std::size_t index) const override { return {record(index), {}}; }
  std::string describe(std::size_t index) const override;
  /// Error{kFormat} naming the file and the record's number if that record is not a JSON object.
  Json record(std::size_t index) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  RecordIndex index_;
  int fd_ = -1;
};

}  // namespace llava
