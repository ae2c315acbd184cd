#include <algorithm>
#include <numeric>

#include "train/trainer.h"

namespace llava {

std::vector<std::vector<std::size_t>> cut_micro_batches(const std::vector<std::size_t>& lengths,
                                                        std::int64_t batch_size, std::int64_t max_tokens) {
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (max_tokens > 0)
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<std::size_t>> batches;
  std::size_t longest = 0;
  for (const std::size_t i : order) {
    bool full = batches.empty();
    if (!full && max_tokens > 0)
      full = (batches.back().size() + 1) * longest > static_cast<std::size_t>(max_tokens);
    if (!full && max_tokens == 0) full = batches.back().size() == static_cast<std::size_t>(batch_size);
    if (full) {
      batches.emplace_back();
      longest = lengths[i];  // with a budget the first row of a batch is its longest
    }
    batches.back().push_back(i);
  }
  return batches;
}

}  // namespace llava
