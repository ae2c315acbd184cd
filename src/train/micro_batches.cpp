#include <algorithm>
#include <map>
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

std::vector<std::vector<std::size_t>> cut_packs(const std::vector<std::size_t>& lengths,
                                                std::int64_t packing_length) {
  const auto room = static_cast<std::size_t>(packing_length);
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<std::size_t>> packs;
  std::multimap<std::size_t, std::size_t> open;  // room left -> pack, oldest first among equals
  for (const std::size_t i : order) {
    const auto fit = open.lower_bound(lengths[i]);
    const std::size_t pack = fit == open.end() ? packs.size() : fit->second;
    const std::size_t left = fit == open.end() ? std::max(room, lengths[i]) : fit->first;
    if (fit == open.end()) {
      packs.emplace_back();
    } else {
      open.erase(fit);
    }
    packs[pack].push_back(i);
    open.emplace(left - lengths[i], pack);
  }
  for (std::vector<std::size_t>& pack : packs) std::sort(pack.begin(), pack.end());
  return packs;
}

std::vector<std::vector<std::size_t>> micro_batches(const std::vector<std::size_t>& lengths,
                                                    const StageConfig& config) {
  if (!config.packing) return cut_micro_batches(lengths, config.batch_size, config.max_tokens_per_batch);
  return cut_packs(lengths, config.pack_tokens());
}

}  // namespace llava
