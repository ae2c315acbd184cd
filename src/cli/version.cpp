#include "cli/version.h"

#include <torch/version.h>

#include "llava_version.h"  // generated: LLAVA_VERSION, LLAVA_COMMIT

namespace llava {

std::string version_text() {
  return "llava " LLAVA_VERSION " (commit " LLAVA_COMMIT ", LibTorch " TORCH_VERSION ")";
}

std::string version_commit() { return LLAVA_COMMIT; }

}  // namespace llava
