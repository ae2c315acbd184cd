#include "tensor/release_pages.h"

#include <sys/mman.h>
#include <unistd.h>

namespace llava {

void release_pages(const TensorView& view) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(view.bytes.data());
  const std::uintptr_t first = (begin + page - 1) / page * page;
  const std::uintptr_t last = (begin + view.bytes.size()) / page * page;
  // the maps are read-only and backed by files, so no content can be lost
  if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace llava
