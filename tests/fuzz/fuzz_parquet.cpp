#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "data/dataset.h"
#include "data/open_source.h"
#include "memory_file.h"

// Any bytes as a parquet file (only where the build reads parquet). libarrow is not instrumented: coverage
// is of our part.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace llava;
  const fuzz::MemoryFile file(data, size);
  try {
    const auto rows = open_parquet(file.path());
    for (std::size_t i = 0; i < std::min<std::size_t>(rows->size(), 64); ++i) try {
        sample_from_record(rows->load(i), "/root", TurnMode::kConversation);
      } catch (const Error& e) {
        if (e.kind() == ErrorKind::kInternal) std::abort();
      }
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) std::abort();
  }
  return 0;
}
