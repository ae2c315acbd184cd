#include "vision/scratch.h"

#include <algorithm>

namespace llava {

namespace {

constexpr std::size_t kMostBuffers = 6;
constexpr std::size_t kLargestBuffer = std::size_t{64} << 20;

std::vector<std::vector<std::uint8_t>>& kept_buffers() {
  thread_local std::vector<std::vector<std::uint8_t>> kept;
  return kept;
}

}  // namespace

std::vector<std::uint8_t> take_scratch(std::size_t size) {
  auto& kept = kept_buffers();
  auto best = kept.end();
  for (auto it = kept.begin(); it != kept.end(); ++it)
    if (it->capacity() >= size && (best == kept.end() || it->capacity() < best->capacity())) best = it;
  if (best == kept.end()) return std::vector<std::uint8_t>(size);
  std::vector<std::uint8_t> buffer = std::move(*best);
  kept.erase(best);
  buffer.resize(size);  // within its capacity: only bytes beyond its last size are written
  return buffer;
}

void keep_scratch(std::vector<std::uint8_t>&& buffer) {
  if (buffer.capacity() == 0 || buffer.capacity() > kLargestBuffer) return;
  auto& kept = kept_buffers();
  if (kept.size() == kMostBuffers)  // the smallest goes
    kept.erase(std::min_element(kept.begin(), kept.end(),
                                [](const auto& a, const auto& b) { return a.capacity() < b.capacity(); }));
  kept.push_back(std::move(buffer));
}

}  // namespace llava
