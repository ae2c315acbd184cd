#include "base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace llava {

namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

std::size_t open_regular(const std::filesystem::path& path, int* fd) {
  *fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (*fd < 0) fail(ErrorKind::kInput, "cannot open {}: {}", path.string(), std::strerror(errno));
  struct stat status {};
  if (::fstat(*fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(*fd);
    fail(ErrorKind::kInput, "{} is not a regular file", path.string());
  }
  return static_cast<std::size_t>(status.st_size);
}

void fsync_path(const std::filesystem::path& path, int flags) {
  const Descriptor fd(::open(path.c_str(), flags | O_CLOEXEC));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0)
    fail(ErrorKind::kResource, "cannot flush {} to disk: {}", path.string(), std::strerror(errno));
}

}  // namespace

std::string read_file(const std::filesystem::path& path, std::size_t max_bytes) {
  int raw = -1;
  const std::size_t size = open_regular(path, &raw);
  const Descriptor fd(raw);
  if (size > max_bytes)
    fail(ErrorKind::kInput, "{} has {} bytes, more than the limit of {}", path.string(), size, max_bytes);
  std::string bytes(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t n = ::read(fd.get(), bytes.data() + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorKind::kInput, "cannot read {}: {}", path.string(), std::strerror(errno));
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  bytes.resize(done);
  return bytes;
}

void write_file_atomic(const std::filesystem::path& path, std::string_view bytes) {
  write_file_atomic(path, [&](const std::filesystem::path& temporary) {
    const Descriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (fd.get() < 0)
      fail(ErrorKind::kResource, "cannot create {}: {}", temporary.string(), std::strerror(errno));
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = ::write(fd.get(), bytes.data() + done, bytes.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0)
        fail(ErrorKind::kResource, "cannot write {}: {}", temporary.string(), std::strerror(errno));
      done += static_cast<std::size_t>(n);
    }
  });
}

void write_file_atomic(const std::filesystem::path& path,
                       const std::function<void(const std::filesystem::path&)>& write) {
  static std::atomic<unsigned> counter{0};
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::filesystem::path temporary =
      folder / fmt::format(".{}.tmp-{}-{}", path.filename().string(), ::getpid(), counter++);
  try {
    write(temporary);
    fsync_path(temporary, O_RDONLY);
    std::error_code failure;
    std::filesystem::rename(temporary, path, failure);
    if (failure) fail(ErrorKind::kResource, "cannot replace {}: {}", path.string(), failure.message());
    fsync_path(folder, O_RDONLY | O_DIRECTORY);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  int raw = -1;
  size_ = open_regular(path, &raw);
  const Descriptor fd(raw);
  if (size_ == 0) return;
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED)
    fail(ErrorKind::kResource, "cannot map {}: {}", path.string(), std::strerror(errno));
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace llava
