#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

/// Byte buffers that a thread uses again for the next image. A fresh megabyte costs as much as resizing
/// into it: the system hands it out page by page, zeroed, and takes it back when it is freed.
namespace llava {

/// A buffer of `size` bytes with any content. From those that this thread gave back, if one is large
/// enough.
std::vector<std::uint8_t> take_scratch(std::size_t size);

/// Keeps a buffer for this thread's next take_scratch; a few, none above 64 MiB.
void keep_scratch(std::vector<std::uint8_t>&& buffer);

}  // namespace llava
