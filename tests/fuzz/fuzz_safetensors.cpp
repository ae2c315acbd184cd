#include "tensor_file_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return llava::fuzz::read_tensor_file(data, size, llava::open_safetensors);
}
