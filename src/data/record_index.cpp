#include "data/record_index.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kMagic = 0x3158444941564C4CULL;  // "LLVAIDX1"
constexpr std::uintmax_t kSmallestStored = std::uintmax_t{4}
                                           << 20;  // less is indexed in the time of a look at the store

struct IndexHeader {
  std::uint64_t magic = kMagic, key = 0, stretches = 0, records = 0, end = 0, hash = 0;
};

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& items) {
  return std::as_bytes(std::span(items));
}

}  // namespace

void RecordIndex::add(std::uint64_t begin, std::span<const std::uint32_t> offsets,
                      std::span<const std::uint16_t> facts) {
  LLAVA_ASSERT(map_ == nullptr && offsets.size() == facts.size(), "record index");
  if (offsets.empty()) return;
  own_stretches_.push_back({begin, own_offsets_.size()});
  own_offsets_.insert(own_offsets_.end(), offsets.begin(), offsets.end());
  own_facts_.insert(own_facts_.end(), facts.begin(), facts.end());
}

std::span<const RecordIndex::Stretch> RecordIndex::stretches() const {
  if (!map_) return own_stretches_;
  IndexHeader header;
  std::memcpy(&header, map_->bytes().data(), sizeof(header));
  return {reinterpret_cast<const Stretch*>(map_->bytes().data() + sizeof(IndexHeader)), header.stretches};
}

std::span<const std::uint32_t> RecordIndex::offsets() const {
  if (!map_) return own_offsets_;
  IndexHeader header;
  std::memcpy(&header, map_->bytes().data(), sizeof(header));
  const auto* begin = map_->bytes().data() + sizeof(IndexHeader) + header.stretches * sizeof(Stretch);
  return {reinterpret_cast<const std::uint32_t*>(begin), header.records};
}

std::span<const std::uint16_t> RecordIndex::packed_facts() const {
  if (!map_) return own_facts_;
  const auto before = offsets();
  return {reinterpret_cast<const std::uint16_t*>(before.data() + before.size()), before.size()};
}

std::pair<std::uint64_t, std::uint64_t> RecordIndex::range(std::size_t record) const {
  const auto all = stretches();
  const auto begin_of = [&](std::size_t i) {
    const auto after = std::upper_bound(all.begin(), all.end(), i,
                                        [](std::size_t r, const Stretch& s) { return r < s.record; });
    return std::prev(after)->begin + offsets()[i];
  };
  LLAVA_ASSERT(record < size(), "record out of range");
  return {begin_of(record), record + 1 < size() ? begin_of(record + 1) : end_};
}

RecordFacts RecordIndex::facts(std::size_t record) const {
  const std::uint16_t packed = packed_facts()[record];
  return {packed & kMostWords, (packed & 0x8000) != 0};
}

void RecordIndex::save(const fs::path& path, std::uint64_t key) {
  IndexHeader header{kMagic, key, own_stretches_.size(), own_offsets_.size(), end_, 0};
  header.hash = hash_bytes(bytes_of(own_stretches_));
  header.hash = hash_bytes(bytes_of(own_offsets_), header.hash);
  header.hash = hash_bytes(bytes_of(own_facts_), header.hash);
  write_file_atomic(path, [&](const fs::path& temporary) {
    std::ofstream file(temporary, std::ios::binary);
    const auto write = [&](std::span<const std::byte> bytes) {
      file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    };
    write(std::as_bytes(std::span(&header, 1)));
    write(bytes_of(own_stretches_));
    write(bytes_of(own_offsets_));
    write(bytes_of(own_facts_));
    if (!file.flush())
      fail(ErrorKind::kResource, "{}: cannot be written: is the disk full?", temporary.string());
  });
  map_ = std::make_unique<MappedFile>(path);
  own_stretches_ = {};
  own_offsets_ = {};
  own_facts_ = {};
}

bool RecordIndex::load(const fs::path& path, std::uint64_t key) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return false;
  auto file = try_outcome([&] { return std::make_unique<MappedFile>(path); });
  if (!file.ok() || file.value()->size() < sizeof(IndexHeader)) return false;
  IndexHeader header;
  std::memcpy(&header, file.value()->bytes().data(), sizeof(header));
  const std::uint64_t most = file.value()->size();
  if (header.magic != kMagic || header.key != key || header.stretches > most || header.records > most ||
      header.records == 0 || header.stretches == 0)
    return false;
  if (sizeof(IndexHeader) + header.stretches * sizeof(Stretch) + header.records * 6 != most) return false;
  map_ = std::move(file).value();
  std::uint64_t hash = hash_bytes(std::as_bytes(stretches()));
  hash = hash_bytes(std::as_bytes(offsets()), hash);
  hash = hash_bytes(std::as_bytes(packed_facts()), hash);
  end_ = header.end;
  if (hash == header.hash) return true;
  map_.reset();
  return false;
}

namespace {

/// Held by the process that builds; the others wait for it.
class BuildLock {
 public:
  explicit BuildLock(const fs::path& path) : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (fd_ >= 0) ::flock(fd_, LOCK_EX);
  }
  ~BuildLock() {
    if (fd_ >= 0) ::close(fd_);
  }
  BuildLock(const BuildLock&) = delete;
  BuildLock& operator=(const BuildLock&) = delete;

 private:
  int fd_;
};

}  // namespace

RecordIndex open_index(const fs::path& path, const fs::path& folder,
                       const std::function<RecordIndex()>& build) {
  struct stat facts {};
  if (folder.empty() || ::stat(path.c_str(), &facts) != 0 ||
      static_cast<std::uintmax_t>(facts.st_size) < kSmallestStored)
    return build();
  const std::string name = fs::absolute(path).lexically_normal().string();
  const std::uint64_t key = hash_text(
      fmt::format("{}|{}|{}.{}", name, facts.st_size, facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec));
  fs::create_directories(folder);
  const fs::path stored = folder / fmt::format("index-{:016x}.bin", hash_text(name));
  RecordIndex index;
  if (index.load(stored, key)) return index;
  const BuildLock lock(folder / fmt::format(".index-{:016x}.lock", hash_text(name)));
  if (index.load(stored, key)) return index;  // another process has built it meanwhile
  index = build();
  try {
    index.save(stored, key);
  } catch (const Error& e) {
    log_warning("data", "the index of {} is not kept: {}", path.string(), e.what());
  }
  return index;
}

}  // namespace llava
