#include "loader/memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>

#include "base/error.h"

namespace llava {
namespace {

std::optional<std::uint64_t> read_number(const char* path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // no such control group, or "max"
}

double gib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

}  // namespace

MemoryStatus memory_status() {
  MemoryStatus status;
  std::ifstream file("/proc/meminfo");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string key;
    std::uint64_t kib = 0;
    words >> key >> kib;
    if (key == "MemTotal:") status.total_bytes = kib * 1024;
    if (key == "MemAvailable:") status.available_bytes = kib * 1024;
  }
  if (status.total_bytes == 0) {  // not Linux: nothing is refused
    constexpr auto kUnknown = std::numeric_limits<std::uint64_t>::max();
    return {kUnknown, kUnknown};
  }
  if (const auto limit = read_number("/sys/fs/cgroup/memory.max")) {
    status.total_bytes = std::min(status.total_bytes, *limit);
    const std::uint64_t used = read_number("/sys/fs/cgroup/memory.current").value_or(0);
    // the group's page cache counts as used but gives way, so only a limit below the machine's size matters
    if (*limit < status.available_bytes) status.available_bytes = *limit > used ? *limit - used : 0;
  }
  return status;
}

void check_memory(const MemoryNeed& need, const MemoryStatus& status, std::string_view what) {
  const std::uint64_t all = need.owned_bytes + need.mapped_bytes;
  if (need.owned_bytes <= status.available_bytes && all <= status.total_bytes) return;
  throw Error(ErrorKind::kResource,
              fmt::format("{} needs {:.1f} GiB of memory ({:.1f} GiB to allocate, {:.1f} GiB mapped from "
                          "files), but {:.1f} "
                          "GiB are available of {:.1f} GiB",
                          what, gib(all), gib(need.owned_bytes), gib(need.mapped_bytes),
                          gib(status.available_bytes), gib(status.total_bytes)),
              "use --dtype as stored (bfloat16 weights stay mapped), a smaller model, or a machine with "
              "more memory");
}

}  // namespace llava
