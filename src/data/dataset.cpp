#include "data/dataset.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/path_pattern.h"
#include "data/open_source.h"

namespace llava {

namespace {

constexpr const char* kImageMark = "<image>";

/// Names under any of these keys: one, a list, or none.
std::vector<std::string> read_names(const Json& record, std::initializer_list<const char*> keys) {
  std::vector<std::string> names;
  const auto add = [&](const Json& name) {
    if (!name.is_string())
      fail(ErrorKind::kInput, "an image or video must be a file name, not {}", name.dump().substr(0, 60));
    names.push_back(name.get<std::string>());
  };
  for (const char* key : keys) {
    if (!record.contains(key) || record[key].is_null() || record[key] == "") continue;
    if (record[key].is_array()) {
      for (const Json& name : record[key]) add(name);
    } else {
      add(record[key]);
    }
  }
  return names;
}

std::string role_of(const Json& turn) {
  return turn.is_object() && turn.contains("from") && turn["from"].is_string()
             ? turn["from"].get<std::string>()
             : "";
}

/// Puts the question again before every further answer, without its media.
Json repeat_questions(const Json& turns) {
  Json repeated = Json::array();
  Json question;
  for (const Json& turn : turns) {
    if (role_of(turn) == "human") {
      question = turn;
    } else if (role_of(turn) == "gpt" && !repeated.empty() && role_of(repeated.back()) == "gpt" &&
               !question.is_null()) {
      Json again = question;
      if (again.contains("value") && again["value"].is_string()) {
        std::string text = again["value"].get<std::string>();
        for (std::size_t at = text.find(kImageMark); at != std::string::npos; at = text.find(kImageMark))
          text.erase(at, 7);
        const std::size_t first = text.find_first_not_of(" \n");
        again["value"] = first == std::string::npos ? "" : text.substr(first);
      }
      repeated.push_back(std::move(again));
    }
    repeated.push_back(turn);
  }
  return repeated;
}

}  // namespace

std::string MediaRef::describe() const {
  return name.empty() ? path.string() : fmt::format("{}: {}", path.string(), name);
}

std::vector<std::filesystem::path> file_paths(const std::vector<MediaRef>& images) {
  std::vector<std::filesystem::path> paths;
  for (const MediaRef& image : images) {
    if (image.bytes || image.size > 0)
      fail(ErrorKind::kUnsupported, "{}: only images in files of their own can be used here",
           image.describe());
    paths.push_back(image.path);
  }
  return paths;
}

Sample sample_from_record(const Json& record, const std::filesystem::path& image_root, TurnMode turns) {
  return sample_from_record(RawRecord{record, {}}, image_root, turns);
}

Sample sample_from_record(const RawRecord& raw, const std::filesystem::path& image_root, TurnMode turns) {
  const Json& record = raw.json;
  Sample sample;
  if (record.contains("id"))
    sample.id = record["id"].is_string() ? record["id"].get<std::string>() : record["id"].dump();
  if (!record.contains("conversations") || !record["conversations"].is_array())
    fail(ErrorKind::kInput, "\"conversations\" is missing or not a list");
  sample.images = raw.images;
  if (raw.images.empty())
    for (const std::string& name : read_names(record, {"image", "images"}))
      sample.images.emplace_back(image_root / name);  // an absolute name replaces the root
  for (const std::string& name : read_names(record, {"video", "videos"}))
    sample.videos.push_back(image_root / name);
  if (turns == TurnMode::kIndependent) {
    Json changed = record;
    changed["conversations"] = repeat_questions(record["conversations"]);
    sample.conversation = conversation_from_llava(changed);
  } else {
    sample.conversation = conversation_from_llava(record);
  }
  if (sample.conversation.num_images() != sample.images.size())
    fail(ErrorKind::kInput, "{} images but {} <image> marks in the text", sample.images.size(),
         sample.conversation.num_images());
  const std::size_t num_videos = sample.conversation.num_media() - sample.conversation.num_images();
  if (num_videos != sample.videos.size())
    fail(ErrorKind::kInput, "{} videos but {} <video> marks in the text", sample.videos.size(), num_videos);
  return sample;
}

Dataset::Dataset(std::vector<DataSourceConfig> sources, const std::filesystem::path& index_folder)
    : sources_(std::move(sources)) {
  std::erase_if(sources_, [](const DataSourceConfig& source) {
    const bool absent = source.optional && !path_exists(source.path);
    if (absent) log_info("data", "{} is not here and is optional: left out", source.path);
    return absent;
  });
  std::size_t total = 0;
  for (DataSourceConfig& source : sources_) {
    files_.push_back(open_source(source.path, index_folder));
    if (source.image_root.empty())
      source.image_root = std::filesystem::path(source.path).parent_path().string();
    const std::size_t count = files_.back()->size();
    total += source.limit > 0 ? std::min(count, static_cast<std::size_t>(source.limit)) : count;
    ends_.push_back(total);
  }
  if (total == 0)
    fail(ErrorKind::kInput, "{}: no records", sources_.empty() ? "data" : sources_.front().path);
  if (total > UINT32_MAX)
    fail(ErrorKind::kUnsupported, "{} records; at most {} can be in one stage", total, UINT32_MAX);
}

std::pair<std::size_t, std::size_t> Dataset::source_range(std::size_t source) const {
  return {source == 0 ? 0 : ends_.at(source - 1), ends_.at(source)};
}

std::pair<std::size_t, std::size_t> Dataset::locate(std::size_t index) const {
  LLAVA_ASSERT(index < size(), "sample out of range");
  const auto source =
      static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin());
  return {source, index - source_range(source).first};
}

SampleInfo Dataset::info(std::size_t index) const {
  const auto [source, record] = locate(index);
  const RecordFacts facts = files_[source]->facts(record);
  return {static_cast<std::uint32_t>(source), static_cast<std::uint32_t>(record), facts.words,
          facts.has_media};
}

RawRecord Dataset::load_raw(std::size_t index) const {
  const auto [source, number] = locate(index);
  return files_[source]->load(number);
}

Sample Dataset::load(std::size_t index, TurnMode turns, RecordKind kind) const {
  const std::size_t source = locate(index).first;
  const RawRecord record = load_raw(index);
  const std::filesystem::path root = sources_[source].image_root;
  return with_context(describe(index), [&] {
    if (kind == RecordKind::kInstruction) return sample_from_record(record, root, turns);
    Sample sample = preference_from_record(record.json, root, kind);
    if (!record.images.empty()) sample.images = record.images;
    return sample;
  });
}

std::string Dataset::describe(std::size_t index) const {
  const auto [source, record] = locate(index);
  return files_[source]->describe(record);
}

}  // namespace llava
