#pragma once
#include "formats/tensor_file.h"

namespace llava {

/// Tells the system that a mapped tensor will not be read again soon: its whole pages leave this process's
/// memory (not the page cache). Reading it again is right, and slower.
void release_pages(const TensorView& view);

}  // namespace llava
