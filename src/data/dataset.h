#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "config/stage_config.h"
#include "data/preference_record.h"
#include "data/record_file.h"
#include "text/conversation.h"

namespace llava {

/// One training example, before any image is read.
struct Sample {
  std::string id;
  std::vector<std::filesystem::path> images;
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
/// conversations, media of the wrong type, videos.
Sample sample_from_record(const Json& record, const std::filesystem::path& image_root, TurnMode turns);

/// The records of a stage's sources, one after the other.
class Dataset {
 public:
  /// Opens all files and reads every record once for the lengths. A record that is not usable stays in the
  /// list and is an error when it is loaded. Error{kInput} if there are no records at all.
  explicit Dataset(std::vector<DataSourceConfig> sources);
  std::size_t size() const { return infos_.size(); }
  const std::vector<SampleInfo>& infos() const { return infos_; }
  const std::vector<DataSourceConfig>& sources() const { return sources_; }
  /// Thread-safe. Error{kInput|kFormat} naming file, record and id.
  Sample load(std::size_t index, TurnMode turns, RecordKind kind = RecordKind::kInstruction) const;
  std::string describe(std::size_t index) const;

 private:
  std::vector<DataSourceConfig> sources_;
  std::vector<std::unique_ptr<RecordFile>> files_;
  std::vector<SampleInfo> infos_;
};

}  // namespace llava
