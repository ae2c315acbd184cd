#include "data/dataset.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"

namespace llava {

namespace {

constexpr const char* kImageMark = "<image>";

std::int64_t words_of(const std::string& text) {
  std::int64_t words = 0;
  bool in_word = false;
  for (const char c : text) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    words += !space && !in_word;
    in_word = !space;
  }
  return words;
}

std::int32_t count_words(const Json& record) {
  std::int64_t words = 0;
  for (const char* key : {"prompt", "question", "chosen", "rejected", "completion"})
    if (const auto text = record.find(key); text != record.end() && text->is_string())
      words += words_of(text->get_ref<const std::string&>());
  const auto turns = record.find("conversations");
  if (turns != record.end() && turns->is_array())
    for (const Json& turn : *turns)
      if (turn.is_object() && turn.contains("value") && turn["value"].is_string())
        words += words_of(turn["value"].get_ref<const std::string&>());
  return static_cast<std::int32_t>(std::min<std::int64_t>(words, INT32_MAX));
}

bool names_media(const Json& record) {
  for (const char* key : {"image", "images", "video"})
    if (record.contains(key) && !record[key].is_null() && record[key] != "") return true;
  return false;
}

std::vector<std::filesystem::path> read_images(const Json& record, const std::filesystem::path& root) {
  if (record.contains("video") && !record["video"].is_null())
    fail(ErrorKind::kUnsupported, "videos cannot be trained on yet");
  std::vector<std::filesystem::path> images;
  const auto add = [&](const Json& name) {
    if (!name.is_string())
      fail(ErrorKind::kInput, "an image must be a file name, not {}", name.dump().substr(0, 60));
    images.push_back(root / name.get<std::string>());  // an absolute name replaces the root
  };
  for (const char* key : {"image", "images"}) {
    if (!record.contains(key) || record[key].is_null() || record[key] == "") continue;
    if (record[key].is_array()) {
      for (const Json& name : record[key]) add(name);
    } else {
      add(record[key]);
    }
  }
  return images;
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

Sample sample_from_record(const Json& record, const std::filesystem::path& image_root, TurnMode turns) {
  Sample sample;
  if (record.contains("id"))
    sample.id = record["id"].is_string() ? record["id"].get<std::string>() : record["id"].dump();
  if (!record.contains("conversations") || !record["conversations"].is_array())
    fail(ErrorKind::kInput, "\"conversations\" is missing or not a list");
  sample.images = read_images(record, image_root);
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
  return sample;
}

Dataset::Dataset(std::vector<DataSourceConfig> sources) : sources_(std::move(sources)) {
  std::erase_if(sources_, [](const DataSourceConfig& source) {
    const bool absent = source.optional && !std::filesystem::exists(source.path);
    if (absent) log_info("data", "{} is not here and is optional: left out", source.path);
    return absent;
  });
  for (std::size_t s = 0; s < sources_.size(); ++s) {
    DataSourceConfig& source = sources_[s];
    files_.push_back(std::make_unique<RecordFile>(source.path));
    if (source.image_root.empty())
      source.image_root = std::filesystem::path(source.path).parent_path().string();
    const std::size_t count =
        source.limit > 0 ? std::min<std::size_t>(files_[s]->size(), static_cast<std::size_t>(source.limit))
                         : files_[s]->size();
    for (std::size_t r = 0; r < count; ++r) {
      SampleInfo info{static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(r), 0, false};
      if (const auto record = try_outcome([&] { return files_[s]->record(r); }); record.ok()) {
        info.length = count_words(record.value());
        info.has_media = names_media(record.value());
      }
      infos_.push_back(info);
    }
  }
  if (infos_.empty())
    fail(ErrorKind::kInput, "{}: no records", sources_.empty() ? "data" : sources_.front().path);
}

Sample Dataset::load(std::size_t index, TurnMode turns, RecordKind kind) const {
  const SampleInfo& info = infos_.at(index);
  const Json record = files_[info.source]->record(info.record);
  const std::filesystem::path root = sources_[info.source].image_root;
  return with_context(describe(index), [&] {
    return kind == RecordKind::kInstruction ? sample_from_record(record, root, turns)
                                            : preference_from_record(record, root, kind);
  });
}

std::string Dataset::describe(std::size_t index) const {
  const SampleInfo& info = infos_.at(index);
  return files_[info.source]->describe(info.record);
}

}  // namespace llava
