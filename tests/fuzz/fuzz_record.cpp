#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "data/dataset.h"
#include "data/record_file.h"
#include "memory_file.h"

// Any bytes as a file of records: the facts that are scanned from the text equal those of the parsed
// record, and every record becomes a sample or an Error.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace llava;
  scan_record({reinterpret_cast<const char*>(data), size});
  const fuzz::MemoryFile memory(data, size);
  try {
    const RecordFile file(memory.path());
    for (std::size_t i = 0; i < file.size(); ++i) {
      const auto record = try_outcome([&] { return file.record(i); });
      if (!record.ok()) continue;
      for (const RecordKind kind :
           {RecordKind::kInstruction, RecordKind::kPair, RecordKind::kLabelled, RecordKind::kPrompt})
        try {
          if (kind == RecordKind::kInstruction) {
            sample_from_record(record.value(), "/root", TurnMode::kIndependent);
          } else {
            preference_from_record(record.value(), "/root", kind);
          }
        } catch (const Error& e) {
          if (e.kind() == ErrorKind::kInternal) std::abort();
        }
    }
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) std::abort();
  }
  return 0;
}
