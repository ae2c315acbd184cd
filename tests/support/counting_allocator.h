#pragma once
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace llava::test {

/// While it lives, all CPU tensors come from an allocator that counts live bytes and their peak. Tensors
/// from before are not counted; those from its time may outlive it.
class CountingAllocator {
 public:
  CountingAllocator() : inner_(c10::GetAllocator(c10::kCPU)), mine_(new Counter(inner_)) {
    c10::SetAllocator(c10::kCPU, mine_, 255);
  }
  ~CountingAllocator() {
    c10::SetAllocator(c10::kCPU, inner_, 255);  // mine_ stays: tensors may still be freed through it
  }
  CountingAllocator(const CountingAllocator&) = delete;
  CountingAllocator& operator=(const CountingAllocator&) = delete;
  std::int64_t live() const { return mine_->live; }
  std::int64_t peak() const { return mine_->peak; }
  void reset_peak() { mine_->peak = mine_->live.load(); }

 private:
  struct Counter;
  struct Block {
    Counter* counter;
    std::size_t bytes;
    c10::DataPtr data;
  };
  struct Counter final : c10::Allocator {
    explicit Counter(c10::Allocator* from) : inner(from) {}
    c10::DataPtr allocate(std::size_t bytes) override {
      auto block = std::make_unique<Block>(Block{this, bytes, inner->allocate(bytes)});
      live += static_cast<std::int64_t>(bytes);
      peak = std::max(peak.load(), live.load());
      void* data = block->data.get();
      return {data, block.release(), &Counter::free_block, c10::Device(c10::kCPU)};
    }
    void copy_data(void* to, const void* from, std::size_t bytes) const override {
      default_copy_data(to, from, bytes);
    }
    static void free_block(void* context) {
      const std::unique_ptr<Block> block(static_cast<Block*>(context));
      block->counter->live -= static_cast<std::int64_t>(block->bytes);
    }
    c10::Allocator* inner;
    std::atomic<std::int64_t> live = 0, peak = 0;
  };
  c10::Allocator* inner_;
  Counter* mine_;
};

}  // namespace llava::test
