#include "data/tar_source.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/progress.h"
#include "data/tar_reader.h"

namespace llava {

namespace {

constexpr std::uint64_t kLongestRecord = 64 << 20;
constexpr std::size_t kMostMembers = 4096;  // of one sample

/// The part of a member's name that its sample shares, and what follows: "a/7.0.jpg" is "a/7" and "0.jpg".
std::pair<std::string, std::string> split_name(const std::string& name) {
  const std::size_t slash = name.rfind('/');
  const std::size_t dot = name.find('.', slash == std::string::npos ? 0 : slash + 1);
  if (dot == std::string::npos) return {name, ""};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

std::string suffix_of(const std::string& extension) {
  std::string suffix = extension.substr(extension.rfind('.') + 1);
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return suffix;
}

template <std::size_t N>
bool is_one_of(const std::string& suffix, const std::array<const char*, N>& known) {
  return std::find(known.begin(), known.end(), suffix) != known.end();
}
constexpr std::array<const char*, 6> kImages = {"jpg", "jpeg", "png", "webp", "gif", "bmp"};
constexpr std::array<const char*, 5> kFilms = {"mp4", "webm", "mkv", "mov", "avi"};

/// The members of one sample, from the header at `offset` on; `end` becomes where the next sample's begins.
std::vector<TarMember> members_at(const TarReader& tar, std::uint64_t offset, std::uint64_t& end) {
  std::vector<TarMember> members;
  std::string key;
  for (std::uint64_t at = offset;;) {
    std::optional<TarMember> member = tar.next(at);
    end = at;
    if (!member) break;
    const std::string own = split_name(member->name).first;
    if (!members.empty() && own != key) break;
    if (members.size() == kMostMembers)
      fail(ErrorKind::kFormat, "{}: more than {} files for {}", tar.path().string(), kMostMembers, own);
    key = own;
    at = member->end;
    members.push_back(std::move(*member));
  }
  return members;
}

const TarMember* find_suffix(const std::vector<TarMember>& members, const char* suffix) {
  for (const TarMember& member : members)
    if (suffix_of(split_name(member.name).second) == suffix) return &member;
  return nullptr;
}

Json caption_record(const std::string& text, std::size_t images) {
  std::string question;
  for (std::size_t i = 0; i < images; ++i) question += "<image>\n";
  return {
      {"conversations", {{{"from", "human"}, {"value", question}}, {{"from", "gpt"}, {"value", text}}}}};
}

RecordFacts facts_of(const TarReader& tar, const std::vector<TarMember>& members) {
  RecordFacts facts;
  if (const TarMember* json = find_suffix(members, "json"); json && json->size <= kLongestRecord) {
    facts = scan_record(tar.read(*json, kLongestRecord));
  } else if (const TarMember* text = find_suffix(members, "txt"); text && text->size <= kLongestRecord) {
    facts.words = static_cast<std::int32_t>(
        std::min<std::int64_t>(count_words(tar.read(*text, kLongestRecord)), kMostWords));
  }
  for (const TarMember& member : members)
    facts.has_media |= is_one_of(suffix_of(split_name(member.name).second), kImages);
  return facts;
}

RecordIndex index_tar(const std::filesystem::path& path) {
  const TarReader tar(path);
  RecordIndex index;
  std::vector<std::uint32_t> offsets;
  std::vector<std::uint16_t> facts;
  std::uint64_t stretch = 0, next = 0;
  Progress progress("indexing " + path.string(), static_cast<std::int64_t>(tar.size() >> 20), 0,
                    {.enabled = tar.size() >> 30 > 0});
  for (std::uint64_t at = 0; at < tar.size(); at = next) {
    const std::vector<TarMember> members = members_at(tar, at, next);
    if (members.empty()) break;
    if (at - stretch > std::numeric_limits<std::uint32_t>::max()) {
      index.add(stretch, offsets, facts);
      offsets.clear();
      facts.clear();
      stretch = at;
    }
    offsets.push_back(static_cast<std::uint32_t>(at - stretch));
    facts.push_back(RecordIndex::pack(facts_of(tar, members)));
    progress.update(static_cast<std::int64_t>(at >> 20));
  }
  index.add(stretch, offsets, facts);
  index.finish(tar.size());
  if (index.size() == 0) fail(ErrorKind::kFormat, "{}: no files in the archive", path.string());
  return index;
}

}  // namespace

TarSource::TarSource(const std::filesystem::path& path, const std::filesystem::path& index_folder)
    : path_(path), index_(open_index(path, index_folder, [&] { return index_tar(path); })) {}

RawRecord TarSource::load(std::size_t index) const {
  return with_context(describe(index), [&] {
    const TarReader tar(path_);
    std::uint64_t end = 0;
    const std::vector<TarMember> members = members_at(tar, index_.range(index).first, end);
    RawRecord record;
    Json names = Json::array();
    for (const TarMember& member : members) {
      const std::string suffix = suffix_of(split_name(member.name).second);
      if (is_one_of(suffix, kFilms))
        throw Error(ErrorKind::kUnsupported, fmt::format("{}: a film within a tar archive", member.name),
                    "keep films as files and name them with \"video\" in the record");
      if (!is_one_of(suffix, kImages)) continue;
      MediaRef image(path_);
      image.offset = member.data;
      image.size = member.size;
      image.name = member.name;
      if (member.size == 0) fail(ErrorKind::kInput, "{}: the image is empty", member.name);
      names.push_back(member.name);
      record.images.push_back(std::move(image));
    }
    if (const TarMember* json = find_suffix(members, "json")) {
      record.json = parse_json(tar.read(*json, kLongestRecord), json->name);
      if (!record.json.is_object())
        fail(ErrorKind::kFormat, "{}: a record must be a JSON object", json->name);
    } else if (const TarMember* text = find_suffix(members, "txt")) {
      record.json = caption_record(tar.read(*text, kLongestRecord), record.images.size());
    } else {
      fail(ErrorKind::kInput, "neither .json nor .txt beside {}",
           members.empty() ? "nothing" : members.front().name);
    }
    if (!record.images.empty()) {
      record.json.erase("images");
      record.json["image"] = std::move(names);
    }
    if (!members.empty() && !record.json.contains("id"))
      record.json["id"] = split_name(members.front().name).first;
    return record;
  });
}

std::string TarSource::describe(std::size_t index) const {
  return fmt::format("{}: sample {}", path_.string(), index);
}

}  // namespace llava
