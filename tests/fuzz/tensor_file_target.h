#pragma once
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "formats/tensor_file.h"
#include "memory_file.h"

namespace llava::fuzz {

/// Opens the bytes with `open` and converts every tensor; only Errors that are not bugs of ours may come
/// out.
template <class Open>
int read_tensor_file(const std::uint8_t* data, std::size_t size, Open open) {
  const MemoryFile memory(data, size);
  try {
    const auto file = open(memory.path());
    file->metadata().dump();
    for (const TensorView& view : file->tensors()) {
      if (file->find(view.name) == nullptr) std::abort();
      if (view.dtype == DType::kF8_E4M3 || view.dtype == DType::kF8_E5M2) continue;
      std::vector<float> values(static_cast<std::size_t>(view.num_elements()));
      to_float32(view, values);
    }
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) std::abort();
  }
  return 0;
}

}  // namespace llava::fuzz
