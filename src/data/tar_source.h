#pragma once
#include <filesystem>
#include <string>

#include "data/record_index.h"
#include "data/record_source.h"

namespace llava {

/// A shard of a WebDataset: a tar archive in which the files of a sample stand together and have one name
/// but for what follows its first dot: KEY.json (a LLaVA record; "image" is not needed) or KEY.txt (a
/// caption), KEY.jpg or several as KEY.0.jpg, KEY.1.png. On opening, the headers and texts are read once; a
/// sample is found by number after that, so a run goes on from any step without decoding.
class TarSource : public RecordSource {
 public:
  /// `index_folder` as RecordFile's. Error{kInput|kFormat}: not to be opened, no tar archive, cut off, no
  /// samples.
  explicit TarSource(const std::filesystem::path& path, const std::filesystem::path& index_folder = {});
  std::size_t size() const override { return index_.size(); }
  RecordFacts facts(std::size_t index) const override { return index_.facts(index); }
  /// Error{kInput|kFormat}: no record or caption, no JSON object, films within the archive.
  RawRecord load(std::size_t index) const override;
  std::string describe(std::size_t index) const override;

 private:
  std::filesystem::path path_;
  RecordIndex index_;
};

}  // namespace llava
