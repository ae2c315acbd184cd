#pragma once
#include <cstdint>
#include <vector>

#include "data/torch_random.h"

namespace llava {

/// Positions 0..n-1 in the order of LLaVA's group_by_length: shuffled, cut into mega-batches of `chunks` *
/// `batch_size` samples, each sorted by length, longest first, and dealt to its chunks one after the other
/// so that their sums stay close. `chunks` is the number of batches that make one step: ranks *
/// accumulation steps. Source: LLaVA's trainer (specification training.md 2.9).
std::vector<std::uint32_t> llava_length_order(const std::vector<std::int32_t>& lengths,
                                              std::size_t batch_size, std::size_t chunks,
                                              TorchRandom& random);

/// The same of group_by_modality_length: samples without media have negative lengths. Both kinds are
/// ordered as above on their own, the whole mega-batches of both shuffled, and what is left of both comes
/// last, in the data's order.
std::vector<std::uint32_t> llava_modality_order(const std::vector<std::int32_t>& lengths,
                                                std::size_t batch_size, std::size_t chunks,
                                                TorchRandom& random);

}  // namespace llava
