#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "config/stage_config.h"
#include "data/preference_record.h"
#include "data/record_source.h"
#include "text/conversation.h"

namespace llava {

/// One training example, before any image is read.
struct Sample {
  std::string id;
  std::vector<MediaRef> images;
  std::vector<std::filesystem::path> videos;  ///< films, or folders of frames
  Conversation conversation;
  Conversation rejected;  ///< kPair: `conversation` with the worse answer
  bool desirable = true;  ///< kLabelled
  std::string answer;     ///< kPrompt: the right answer, if the record says it
};

/// What the samplers know of a record.
struct SampleInfo {
  std::uint32_t source = 0;
  std::uint32_t record = 0;
  std::int32_t length = 0;  ///< words of all turns: an estimate that orders samples, not a token count
  bool has_media = false;
};

/// One record of LLaVA's format as a sample. With independent turns, answers that follow each other are
/// alternatives for one question: the question is repeated before each. Error{kInput} for missing
/// conversations, media of the wrong type, marks without media.
Sample sample_from_record(const RawRecord& record, const std::filesystem::path& image_root, TurnMode turns);
Sample sample_from_record(const Json& record, const std::filesystem::path& image_root, TurnMode turns);

/// The records of a stage's sources, one after the other.
class Dataset {
 public:
  /// Opens all files and finds their records and the samplers' facts. `index_folder`: where the indexes of
  /// large files are kept for the next time and for other processes; empty: nowhere. A record that is not
  /// usable stays in the list and is an error when it is loaded. Error{kInput} if there are no records at
  /// all.
  explicit Dataset(std::vector<DataSourceConfig> sources, const std::filesystem::path& index_folder = {});
  std::size_t size() const { return ends_.empty() ? 0 : ends_.back(); }
  SampleInfo info(std::size_t index) const;
  /// First sample of a source and the first one after it.
  std::pair<std::size_t, std::size_t> source_range(std::size_t source) const;
  const std::vector<DataSourceConfig>& sources() const { return sources_; }
  /// Thread-safe. Error{kInput|kFormat} naming file, record and id.
  Sample load(std::size_t index, TurnMode turns, RecordKind kind = RecordKind::kInstruction) const;
  /// The record as it lies in its file. Errors as load's.
  RawRecord load_raw(std::size_t index) const;
  std::string describe(std::size_t index) const;

 private:
  std::pair<std::size_t, std::size_t> locate(std::size_t index) const;

  std::vector<DataSourceConfig> sources_;
  std::vector<std::unique_ptr<RecordSource>> files_;
  std::vector<std::size_t> ends_;  ///< first sample after each source
};

}  // namespace llava
