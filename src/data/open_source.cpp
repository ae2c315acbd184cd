#include "data/open_source.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/path_pattern.h"
#include "base/progress.h"
#include "data/record_file.h"
#include "data/tar_source.h"

namespace llava {

namespace {

constexpr unsigned kMostOpenThreads = 16;

std::unique_ptr<RecordSource> open_file(const std::filesystem::path& path,
                                        const std::filesystem::path& index_folder) {
  if (path.extension() == ".tar") return std::make_unique<TarSource>(path, index_folder);
  if (path.extension() == ".parquet") return open_parquet(path);
  return std::make_unique<RecordFile>(path, index_folder);
}

/// Several sources as one.
class ManySources : public RecordSource {
 public:
  explicit ManySources(std::vector<std::unique_ptr<RecordSource>> parts) : parts_(std::move(parts)) {
    std::size_t total = 0;
    for (const auto& part : parts_) ends_.push_back(total += part->size());
  }
  std::size_t size() const override { return ends_.back(); }
  RecordFacts facts(std::size_t index) const override {
    const auto [part, own] = locate(index);
    return parts_[part]->facts(own);
  }
  RawRecord load(std::size_t index) const override {
    const auto [part, own] = locate(index);
    return parts_[part]->load(own);
  }
  std::string describe(std::size_t index) const override {
    const auto [part, own] = locate(index);
    return parts_[part]->describe(own);
  }

 private:
  std::pair<std::size_t, std::size_t> locate(std::size_t index) const {
    LLAVA_ASSERT(index < size(), "record out of range");
    const auto part =
        static_cast<std::size_t>(std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin());
    return {part, index - (part == 0 ? 0 : ends_[part - 1])};
  }
  std::vector<std::unique_ptr<RecordSource>> parts_;
  std::vector<std::size_t> ends_;
};

}  // namespace

std::unique_ptr<RecordSource> open_source(const std::string& path,
                                          const std::filesystem::path& index_folder) {
  const std::vector<std::filesystem::path> files = expand_path(path);
  if (files.size() == 1) return open_file(files.front(), index_folder);
  std::vector<std::unique_ptr<RecordSource>> parts(files.size());
  std::vector<std::exception_ptr> errors(files.size());
  std::atomic<std::size_t> next = 0, done = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < files.size(); i = next++) {
      try {
        parts[i] = open_file(files[i], index_folder);
      } catch (...) {
        errors[i] = std::current_exception();
      }
      ++done;
    }
  };
  std::vector<std::thread> threads;
  const unsigned count = std::clamp(std::thread::hardware_concurrency(), 1U, kMostOpenThreads);
  for (unsigned t = 0; t < std::min<std::size_t>(count, files.size()); ++t) threads.emplace_back(work);
  {
    Progress progress("opening " + path, static_cast<std::int64_t>(files.size()), 0,
                      {.enabled = files.size() > 32});
    while (done < files.size()) {
      progress.update(static_cast<std::int64_t>(done));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  return std::make_unique<ManySources>(std::move(parts));
}

}  // namespace llava
