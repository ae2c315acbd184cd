#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"

namespace llava {

namespace {

constexpr std::size_t kMegaBatchSteps = 32;

using Indices = std::vector<std::size_t>;

void shuffle(Indices& items, Rng& rng) {
  for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[rng.below(i)]);
}

/// Sorts stretches of kMegaBatchSteps steps by length, longest first; equal lengths keep their (shuffled)
/// order.
void sort_within_mega_batches(Indices& items, const std::vector<SampleInfo>& infos, std::size_t per_step) {
  const std::size_t mega = kMegaBatchSteps * per_step;
  for (std::size_t begin = 0; begin < items.size(); begin += mega) {
    const auto first = items.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last = items.begin() + static_cast<std::ptrdiff_t>(std::min(items.size(), begin + mega));
    std::stable_sort(first, last,
                     [&](std::size_t a, std::size_t b) { return infos[a].length > infos[b].length; });
  }
}

/// Moves whole steps out of `items` into `steps`; the short rest stays.
void cut_steps(Indices& items, std::size_t per_step, std::vector<Indices>& steps) {
  std::size_t begin = 0;
  for (; begin + per_step <= items.size(); begin += per_step)
    steps.emplace_back(items.begin() + static_cast<std::ptrdiff_t>(begin),
                       items.begin() + static_cast<std::ptrdiff_t>(begin + per_step));
  items.erase(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(begin));
}

Indices shuffle_steps(std::vector<Indices> steps, const Indices& rest, Rng& rng) {
  Indices order(steps.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  shuffle(order, rng);
  Indices out;
  for (const std::size_t s : order) out.insert(out.end(), steps[s].begin(), steps[s].end());
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

Indices group_by_length(Indices items, const std::vector<SampleInfo>& infos, std::size_t per_step,
                        bool by_modality, Rng& rng) {
  std::vector<Indices> groups(by_modality ? 2 : 1);
  for (const std::size_t i : items) groups[by_modality && !infos[i].has_media].push_back(i);
  std::vector<Indices> steps;
  Indices rest;
  for (Indices& group : groups) {
    sort_within_mega_batches(group, infos, per_step);
    cut_steps(group, per_step, steps);
    rest.insert(rest.end(), group.begin(), group.end());
  }
  return shuffle_steps(std::move(steps), rest, rng);
}

}  // namespace

SampleOrder::SampleOrder(const Dataset& dataset, SamplerKind kind, std::int64_t samples_per_step,
                         std::uint64_t seed)
    : dataset_(dataset), kind_(kind), samples_per_step_(samples_per_step), seed_(seed) {
  LLAVA_ASSERT(samples_per_step > 0, "a step needs samples");
  samples_per_epoch_ = static_cast<std::int64_t>(draw_mixture(0).size());
  if (samples_per_epoch_ == 0) fail(ErrorKind::kInput, "the data's weights leave no sample in an epoch");
}

std::int64_t SampleOrder::steps_per_epoch() const {
  return (samples_per_epoch_ + samples_per_step_ - 1) / samples_per_step_;
}

std::int64_t SampleOrder::total_steps(std::int64_t max_steps, double epochs) const {
  if (max_steps > 0) return max_steps;
  return std::max<std::int64_t>(
      1, std::llround(std::ceil(epochs * static_cast<double>(steps_per_epoch()) - 1e-9)));
}

Indices SampleOrder::draw_mixture(std::uint64_t seed) const {
  const std::vector<SampleInfo>& infos = dataset_.infos();
  Rng rng(seed);
  Indices out;
  for (std::size_t begin = 0; begin < infos.size();) {
    std::size_t end = begin;
    while (end < infos.size() && infos[end].source == infos[begin].source) ++end;
    Indices all(end - begin);
    std::iota(all.begin(), all.end(), begin);
    const double weight = dataset_.sources()[infos[begin].source].weight;
    for (double left = weight; left >= 1; left -= 1) out.insert(out.end(), all.begin(), all.end());
    const auto part = static_cast<std::ptrdiff_t>(
        std::llround((weight - std::floor(weight)) * static_cast<double>(all.size())));
    shuffle(all, rng);
    std::sort(all.begin(), all.begin() + part);
    out.insert(out.end(), all.begin(), all.begin() + part);
    begin = end;
  }
  return out;
}

Indices SampleOrder::epoch(std::int64_t epoch) const {
  Rng rng(seed_ * 0x9E3779B97F4A7C15ULL + static_cast<std::uint64_t>(epoch) + 1);
  Indices items = draw_mixture(rng.next());
  if (kind_ == SamplerKind::kSequential) return items;
  shuffle(items, rng);
  if (kind_ == SamplerKind::kRandom) return items;
  const auto per_step = static_cast<std::size_t>(samples_per_step_);
  return group_by_length(std::move(items), dataset_.infos(), per_step, kind_ == SamplerKind::kModality,
                         rng);
}

Indices SampleOrder::step_samples(std::int64_t step) const {
  const std::int64_t wanted = step / steps_per_epoch();
  if (wanted != cached_epoch_) {
    cached_ = epoch(wanted);
    cached_epoch_ = wanted;
  }
  const std::int64_t first = step % steps_per_epoch() * samples_per_step_;
  const std::int64_t last = std::min(first + samples_per_step_, samples_per_epoch_);
  return {cached_.begin() + first, cached_.begin() + last};
}

}  // namespace llava
