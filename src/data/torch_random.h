#pragma once
#include <cstdint>
#include <random>
#include <vector>

namespace llava {

/// torch's CPU generator as far as the samplers of LLaVA use it: the Mersenne twister of 32 bits, seeded
/// with the low half of the seed, and randperm.
class TorchRandom {
 public:
  explicit TorchRandom(std::uint64_t seed) : engine_(static_cast<std::uint32_t>(seed)) {}
  /// torch.randperm(n, generator=…), for n below 2^32 / 20 (torch draws otherwise above:
  /// Error{kUnsupported}).
  std::vector<std::uint32_t> permutation(std::size_t n);

 private:
  std::mt19937 engine_;
};

}  // namespace llava
