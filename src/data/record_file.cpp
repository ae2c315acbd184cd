#include "data/record_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/error.h"
#include "base/progress.h"

namespace llava {

namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::size_t kStretchBytes = std::size_t{32} << 20;
constexpr unsigned kMostIndexThreads = 16;

/// A file's text while it is indexed. done() lets go of the pages of what is finished, so that a file
/// larger than memory passes through without filling it.
class ScannedText {
 public:
  explicit ScannedText(const std::filesystem::path& path) : file_(path) {
    text_ = {reinterpret_cast<const char*>(file_.bytes().data()), file_.size()};
    if (text_.substr(0, 3) == "\xEF\xBB\xBF") first_ = 3;
  }
  std::string_view text() const { return text_; }
  std::size_t mark() const { return first_; }  ///< bytes of the byte order mark
  std::size_t first() const { return text_.find_first_not_of(kSpace, first_); }
  void done(std::size_t begin, std::size_t end) const {
    constexpr std::size_t kPage = 4096;
    begin = (begin + kPage - 1) / kPage * kPage;
    end = end / kPage * kPage;
    if (end > begin) ::madvise(const_cast<char*>(text_.data()) + begin, end - begin, MADV_DONTNEED);
  }

 private:
  MappedFile file_;
  std::string_view text_;
  std::size_t first_ = 0;
};

/// Records that begin in one stretch of the file.
struct FoundRecords {
  std::vector<std::uint32_t> offsets;
  std::vector<std::uint16_t> facts;
  void add(std::size_t offset, std::string_view record) {
    offsets.push_back(static_cast<std::uint32_t>(offset));
    facts.push_back(RecordIndex::pack(scan_record(record)));
  }
};

/// Lines that begin in [begin, end) and hold something; the first may begin at `at`.
FoundRecords lines_of(std::string_view text, std::size_t begin, std::size_t at, std::size_t end) {
  FoundRecords found;
  while (at < end) {
    std::size_t stop = text.find('\n', at);
    if (stop == std::string_view::npos) stop = text.size();
    const std::string_view line = text.substr(at, stop - at);
    const std::size_t first = line.find_first_not_of(kSpace);
    if (first != std::string_view::npos) found.add(at - begin, line.substr(first));
    at = stop + 1;
  }
  return found;
}

RecordIndex index_lines(const ScannedText& file, const std::string& name) {
  const std::string_view text = file.text();
  const std::size_t stretches = (text.size() + kStretchBytes - 1) / kStretchBytes;
  std::vector<FoundRecords> found(stretches);
  std::atomic<std::size_t> next = 0, done = 0;
  const auto work = [&] {
    for (std::size_t s = next++; s < stretches; s = next++) {
      const std::size_t begin = s * kStretchBytes, end = std::min(text.size(), begin + kStretchBytes);
      std::size_t at = s == 0 ? file.mark() : begin;
      if (s > 0 && text[begin - 1] != '\n') {  // the line before goes on into this stretch
        at = text.find('\n', begin);
        at = at == std::string_view::npos ? text.size() : at + 1;
      }
      found[s] = lines_of(text, begin, at, end);
      file.done(begin, end);
      ++done;
    }
  };
  std::vector<std::thread> threads;
  const unsigned count = std::clamp(std::thread::hardware_concurrency(), 1U, kMostIndexThreads);
  for (unsigned t = 0; t < std::min<std::size_t>(count, stretches); ++t) threads.emplace_back(work);
  RecordIndex index;
  {
    Progress progress("indexing " + name, static_cast<std::int64_t>(stretches), 0,
                      {.enabled = stretches > 8});
    while (done < stretches) {
      progress.update(static_cast<std::int64_t>(done));
      std::this_thread::sleep_for(std::chrono::milliseconds(stretches > 8 ? 50 : 1));
    }
  }
  for (std::thread& thread : threads) thread.join();
  std::size_t records = 0;
  for (const FoundRecords& part : found) records += part.offsets.size();
  index.reserve(records);
  for (std::size_t s = 0; s < stretches; ++s) {
    index.add(s * kStretchBytes, found[s].offsets, found[s].facts);
    found[s] = {};
  }
  index.finish(text.size());
  return index;
}

/// The items of a list; one thread, since where an item begins is known from all before it.
RecordIndex index_list(const ScannedText& file, const std::string& name) {
  const std::string_view text = file.text();
  RecordIndex index;
  FoundRecords found;
  std::size_t depth = 0, begin = 0, stretch = 0;
  bool in_item = false;
  Progress progress("indexing " + name, static_cast<std::int64_t>(text.size() >> 20), 0,
                    {.enabled = text.size() > 8 * kStretchBytes});
  const auto end_stretch = [&](std::size_t at) {
    index.add(stretch, found.offsets, found.facts);
    file.done(stretch, at);
    found = {};
    stretch = at;
    progress.update(static_cast<std::int64_t>(at >> 20));
  };
  for (std::size_t i = file.first(); i < text.size(); ++i) {
    const char c = text[i];
    if (depth == 1 && !in_item && c != ',' && c != ']' && kSpace.find(c) == std::string_view::npos) {
      if (i - stretch >= kStretchBytes) end_stretch(i);
      begin = i;
      in_item = true;
    }
    if (c == '"') {
      for (++i; i < text.size() && text[i] != '"'; ++i) i += text[i] == '\\';
      continue;
    }
    if (depth == 1 && in_item && (c == ',' || c == ']')) {
      found.add(begin - stretch, text.substr(begin, i - begin));
      in_item = false;
    }
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && --depth == 0) {
      if (text.find_first_not_of(kSpace, i + 1) != std::string_view::npos)
        fail(ErrorKind::kFormat, "{}: text after the list's end (byte {})", name, i + 1);
      end_stretch(i);
      index.finish(i);
      return index;
    }
  }
  fail(ErrorKind::kFormat, "{}: the list of records has no end; the file is cut off", name);
}

RecordIndex index_file(const std::filesystem::path& path) {
  const ScannedText file(path);
  if (file.first() == std::string_view::npos)
    fail(ErrorKind::kFormat, "{}: the file is empty", path.string());
  const char first = file.text()[file.first()];
  if (first == '[') return index_list(file, path.string());
  if (first == '{') return index_lines(file, path.string());
  fail(ErrorKind::kFormat, "{}: expected a JSON list of records or one JSON object a line", path.string());
}

}  // namespace

RecordFile::RecordFile(const std::filesystem::path& path, const std::filesystem::path& index_folder)
    : path_(path), index_(open_index(path, index_folder, [&] { return index_file(path); })) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) fail(ErrorKind::kInput, "{}: cannot be opened", path.string());
}

RecordFile::~RecordFile() {
  if (fd_ >= 0) ::close(fd_);
}

Json RecordFile::record(std::size_t index) const {
  const auto [begin, end] = index_.range(index);
  std::string text(end - begin, '\0');
  for (std::size_t got = 0; got < text.size();) {
    const ssize_t n = ::pread(fd_, text.data() + got, text.size() - got, static_cast<off_t>(begin + got));
    if (n <= 0) fail(ErrorKind::kInput, "{}: cannot be read: the file has become shorter", describe(index));
    got += static_cast<std::size_t>(n);
  }
  const std::size_t last = text.find_last_not_of(", \t\r\n");  // what stands before the next record
  text.resize(last == std::string::npos ? 0 : last + 1);
  Json json = parse_json(text, describe(index));
  if (!json.is_object()) fail(ErrorKind::kFormat, "{}: a record must be a JSON object", describe(index));
  return json;
}

std::string RecordFile::describe(std::size_t index) const {
  return fmt::format("{}: record {}", path_.string(), index);
}

}  // namespace llava
