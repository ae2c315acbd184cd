#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/record_facts.h"

namespace llava {

/// An image file, or the bytes of one in another file.
struct MediaRef {
  std::filesystem::path path;          ///< the file
  std::uint64_t offset = 0, size = 0;  ///< the part of it that is the image; size 0: all of it
  std::string name;                    ///< of the part, for messages
  std::shared_ptr<const std::string>
      bytes;  ///< set: the image's bytes themselves; `path` and `name` say whence
  MediaRef(std::filesystem::path file) : path(std::move(file)) {}  // NOLINT: implicit on purpose
  MediaRef() = default;
  /// "a.png", "shard.tar: 7.jpg".
  std::string describe() const;
  bool operator==(const MediaRef& o) const {
    return path == o.path && offset == o.offset && size == o.size && name == o.name && bytes == o.bytes;
  }
};

/// The files of images that are files of their own; Error{kUnsupported} for one that is not.
std::vector<std::filesystem::path> file_paths(const std::vector<MediaRef>& images);

/// A record as it lies in a data file. `images` are those the file itself holds; records that only name
/// their images leave it empty.
struct RawRecord {
  Json json;
  std::vector<MediaRef> images;
};

/// Records that can be had in any order. All functions are thread-safe.
class RecordSource {
 public:
  virtual ~RecordSource() = default;
  virtual std::size_t size() const = 0;
  virtual RecordFacts facts(std::size_t index) const = 0;
  /// Error{kFormat|kInput} naming the file and the record.
  virtual RawRecord load(std::size_t index) const = 0;
  virtual std::string describe(std::size_t index) const = 0;
};

}  // namespace llava
