#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "data/dataset.h"
#include "data/tar_source.h"
#include "memory_file.h"

// Any bytes as a WebDataset shard: indexed, and every sample loaded as a training record.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace llava;
  const fuzz::MemoryFile file(data, size);
  try {
    const TarSource tar(file.path());
    if (tar.size() == 0) std::abort();
    for (std::size_t i = 0; i < tar.size(); ++i) try {
        const RawRecord record = tar.load(i);
        for (const MediaRef& image : record.images)
          if (image.size == 0 || image.offset + image.size > size) std::abort();
        sample_from_record(record, "/root", i % 2 == 0 ? TurnMode::kConversation : TurnMode::kIndependent);
      } catch (const Error& e) {
        if (e.kind() == ErrorKind::kInternal) std::abort();
      }
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) std::abort();
  }
  return 0;
}
