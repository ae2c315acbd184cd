#pragma once
#include <cstdint>
#include <string_view>

namespace llava {

/// Memory of this machine (or of its control group, where that is less).
struct MemoryStatus {
  std::uint64_t available_bytes = 0;  ///< can be allocated now without swapping
  std::uint64_t total_bytes = 0;
};
MemoryStatus memory_status();

/// What a model takes: `owned` must be allocated, `mapped` is read from files and can be shared with the
/// page cache.
struct MemoryNeed {
  std::uint64_t owned_bytes = 0, mapped_bytes = 0;
};

/// Error{kResource} with the numbers if `need.owned_bytes` is more than is available, or owned and mapped
/// together are more than there is in total (then every token would read the weights from the disk).
void check_memory(const MemoryNeed& need, const MemoryStatus& status, std::string_view what);

}  // namespace llava
