#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "data/llava_sampler.h"

namespace llava {

namespace {

constexpr std::size_t kMegaBatchSteps = 32;
constexpr std::int32_t kImageWords = 128;  // what LLaVA's group_by_length counts for an image

using Indices = SampleOrder::Indices;

void shuffle(Indices& items, Rng& rng, std::size_t first = 0) {
  for (std::size_t i = items.size(); i > first + 1; --i)
    std::swap(items[i - 1], items[first + rng.below(i - first)]);
}

/// Sorts [first, last) in stretches of `mega` by length, longest first; equal lengths keep their (shuffled)
/// order.
void sort_within(Indices& items, std::size_t first, std::size_t last, const Dataset& data,
                 std::size_t mega) {
  std::vector<std::pair<std::int32_t, std::uint32_t>> stretch;
  for (std::size_t begin = first; begin < last; begin += mega) {
    const std::size_t end = std::min(last, begin + mega);
    stretch.clear();
    for (std::size_t i = begin; i < end; ++i) stretch.emplace_back(data.info(items[i]).length, items[i]);
    std::stable_sort(stretch.begin(), stretch.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    for (std::size_t i = begin; i < end; ++i) items[i] = stretch[i - begin].second;
  }
}

Indices group_by_length(Indices items, const Dataset& data, std::size_t per_step, bool by_modality,
                        Rng& rng) {
  const auto text = by_modality ? std::stable_partition(items.begin(), items.end(),
                                                        [&](auto i) { return data.info(i).has_media; })
                                : items.end();
  const auto media_end = static_cast<std::size_t>(text - items.begin());
  Indices steps, rest;  // first places of whole steps; places of what is left
  for (const auto& [first, last] :
       {std::pair(std::size_t{0}, media_end), std::pair(media_end, items.size())}) {
    sort_within(items, first, last, data, kMegaBatchSteps * per_step);
    std::size_t place = first;
    for (; place + per_step <= last; place += per_step) steps.push_back(static_cast<std::uint32_t>(place));
    rest.insert(rest.end(), items.begin() + static_cast<std::ptrdiff_t>(place),
                items.begin() + static_cast<std::ptrdiff_t>(last));
  }
  shuffle(steps, rng);
  Indices out;
  out.reserve(items.size());
  for (const std::uint32_t place : steps)
    out.insert(out.end(), items.begin() + place,
               items.begin() + place + static_cast<std::ptrdiff_t>(per_step));
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

}  // namespace

SampleOrder::SampleOrder(const Dataset& dataset, const OrderOptions& options)
    : dataset_(dataset), options_(options) {
  LLAVA_ASSERT(options.batch_size > 0 && options.grad_accum > 0, "a step needs samples");
  double expected = 0;
  for (std::size_t s = 0; s < dataset.sources().size(); ++s) {
    const auto [begin, end] = dataset.source_range(s);
    const double weight = dataset.sources()[s].weight, size = static_cast<double>(end - begin);
    expected +=
        std::floor(weight) * size + static_cast<double>(std::llround((weight - std::floor(weight)) * size));
  }
  if (expected > UINT32_MAX)
    fail(ErrorKind::kUnsupported,
         "the data's weights make {:.3g} samples an epoch; at most {} can be ordered", expected,
         UINT32_MAX);
  samples_per_epoch_ = std::llround(expected);
  if (samples_per_epoch_ == 0) fail(ErrorKind::kInput, "the data's weights leave no sample in an epoch");
}

std::int64_t SampleOrder::steps_per_epoch() const {
  return (samples_per_epoch_ + options_.samples_per_step() - 1) / options_.samples_per_step();
}

std::int64_t SampleOrder::total_steps(std::int64_t max_steps, double epochs) const {
  if (max_steps > 0) return max_steps;
  return std::max<std::int64_t>(
      1, std::llround(std::ceil(epochs * static_cast<double>(steps_per_epoch()) - 1e-9)));
}

Indices SampleOrder::draw_mixture(std::uint64_t seed) const {
  Rng rng(seed);
  Indices out;
  out.reserve(static_cast<std::size_t>(samples_per_epoch_));
  for (std::size_t s = 0; s < dataset_.sources().size(); ++s) {
    const auto [begin, end] = dataset_.source_range(s);
    const double weight = dataset_.sources()[s].weight;
    const auto append_all = [&, first = begin, last = end] {
      for (std::size_t i = first; i < last; ++i) out.push_back(static_cast<std::uint32_t>(i));
    };
    for (double left = weight; left >= 1; left -= 1) append_all();
    const auto part = static_cast<std::size_t>(
        std::llround((weight - std::floor(weight)) * static_cast<double>(end - begin)));
    if (part == 0) {  // as if shuffled: the draws of the next source do not depend on this weight
      rng.skip(end - begin - (end > begin));
      continue;
    }
    const std::size_t first = out.size();
    append_all();
    shuffle(out, rng, first);
    out.resize(first + part);
    std::sort(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
  }
  return out;
}

Indices SampleOrder::llava_epoch(Indices items, std::uint64_t seed) const {
  const bool by_modality = options_.kind == SamplerKind::kLlavaModality;
  std::vector<std::int32_t> lengths;
  lengths.reserve(items.size());
  for (const std::uint32_t item : items) {
    const SampleInfo info = dataset_.info(item);
    if (by_modality) {
      lengths.push_back(info.has_media ? info.length : -info.length);
    } else {
      lengths.push_back(info.length + (info.has_media ? kImageWords : 0));
    }
  }
  TorchRandom random(seed);
  const auto batch = static_cast<std::size_t>(options_.batch_size),
             chunks = static_cast<std::size_t>(options_.grad_accum);
  Indices places = by_modality ? llava_modality_order(lengths, batch, chunks, random)
                               : llava_length_order(lengths, batch, chunks, random);
  for (std::uint32_t& place : places) place = items[place];
  return places;
}

Indices SampleOrder::epoch(std::int64_t epoch) const {
  Rng rng(options_.seed * 0x9E3779B97F4A7C15ULL + static_cast<std::uint64_t>(epoch) + 1);
  Indices items = draw_mixture(rng.next());
  const SamplerKind kind = options_.kind;
  if (kind == SamplerKind::kSequential) return items;
  if (kind == SamplerKind::kLlavaLength || kind == SamplerKind::kLlavaModality)
    return llava_epoch(std::move(items), options_.seed + static_cast<std::uint64_t>(epoch));
  shuffle(items, rng);
  if (kind == SamplerKind::kRandom) return items;
  const auto per_step = static_cast<std::size_t>(options_.samples_per_step());
  return group_by_length(std::move(items), dataset_, per_step, kind == SamplerKind::kModality, rng);
}

std::vector<std::size_t> SampleOrder::step_samples(std::int64_t step) const {
  const std::int64_t wanted = step / steps_per_epoch();
  if (wanted != cached_epoch_) {
    cached_ = {};  // before the next one is drawn: one epoch in memory, not two
    cached_ = epoch(wanted);
    cached_epoch_ = wanted;
  }
  const std::int64_t first = step % steps_per_epoch() * options_.samples_per_step();
  const std::int64_t last = std::min(first + options_.samples_per_step(), samples_per_epoch_);
  return {cached_.begin() + first, cached_.begin() + last};
}

}  // namespace llava
