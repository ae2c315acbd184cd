#pragma once
#include <filesystem>

namespace llava {

/// Holds a folder for this process alone, through an advisory lock on `<folder>/.lock` that the system
/// gives back when the process ends, however it ends. Error{kResource} at once if another process (or
/// another FileLock) holds it.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& folder);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace llava
