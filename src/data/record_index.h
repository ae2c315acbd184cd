#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "data/record_facts.h"

namespace llava {

/// Where the records of a text file begin, and their facts: six bytes a record. The file is cut into
/// stretches; a record is known by its distance from its stretch's begin.
class RecordIndex {
 public:
  struct Stretch {
    std::uint64_t begin = 0;   ///< byte in the file
    std::uint64_t record = 0;  ///< number of its first record
  };

  /// Room for that many, so that adding does not copy.
  void reserve(std::size_t records) { own_offsets_.reserve(records), own_facts_.reserve(records); }
  /// Adds a stretch; `offsets` are distances from `begin`, ascending, one for each fact.
  void add(std::uint64_t begin, std::span<const std::uint32_t> offsets,
           std::span<const std::uint16_t> facts);
  /// Ends the index: the last record ends at or before `end`.
  void finish(std::uint64_t end) { end_ = end; }

  std::size_t size() const { return offsets().size(); }
  /// The record's first byte, and the first byte of the next one (or the end).
  std::pair<std::uint64_t, std::uint64_t> range(std::size_t record) const;
  RecordFacts facts(std::size_t record) const;

  static std::uint16_t pack(const RecordFacts& facts) {
    return static_cast<std::uint16_t>(facts.words | (facts.has_media ? 0x8000 : 0));
  }

  /// Writes the index, and from then on uses the file (mapped) in place of its own memory. `key` says what
  /// it is an index of. Error{kResource} if it cannot be written.
  void save(const std::filesystem::path& path, std::uint64_t key);
  /// False if there is none, or it is of something else, or damaged: build it anew then.
  bool load(const std::filesystem::path& path, std::uint64_t key);

 private:
  std::span<const Stretch> stretches() const;
  std::span<const std::uint32_t> offsets() const;
  std::span<const std::uint16_t> packed_facts() const;

  std::vector<Stretch> own_stretches_;
  std::vector<std::uint32_t> own_offsets_;
  std::vector<std::uint16_t> own_facts_;
  std::uint64_t end_ = 0;
  std::unique_ptr<MappedFile> map_;
};

/// The index that lies in `folder` for the file at `path` (by its name, size and time of change), or the
/// one that `build` makes, then stored there; several processes that ask at once build it once. An empty
/// folder: always built, never stored.
RecordIndex open_index(const std::filesystem::path& path, const std::filesystem::path& folder,
                       const std::function<RecordIndex()>& build);

}  // namespace llava
