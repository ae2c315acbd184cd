#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace llava {

FileLock::FileLock(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / ".lock";
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(ErrorKind::kResource, "cannot create {}: {}", path.string(), std::strerror(errno));
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  const int error = errno;
  ::close(fd_);
  if (error != EWOULDBLOCK)
    fail(ErrorKind::kResource, "cannot lock {}: {}", path.string(), std::strerror(error));
  throw Error(ErrorKind::kResource, fmt::format("{}: another run is writing here", folder.string()),
              "wait until it ends, or choose another output");
}

FileLock::~FileLock() { ::close(fd_); }

}  // namespace llava
