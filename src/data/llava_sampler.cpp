#include "data/llava_sampler.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"

namespace llava {

namespace {

using Indices = std::vector<std::uint32_t>;
using Iterator = Indices::iterator;

/// Deals [begin, end), sorted by length, to `chunks` chunks and puts these one after the other. An uneven
/// rest is dealt in turn; else each sample goes to the shortest chunk that has room, the first of equals.
void deal(Iterator begin, Iterator end, const std::vector<std::int32_t>& lengths, std::size_t chunks) {
  const Indices items(begin, end);
  if (items.size() % chunks != 0) {
    for (std::size_t c = 0; c < chunks; ++c)
      for (std::size_t i = c; i < items.size(); i += chunks) *begin++ = items[i];
    return;
  }
  const std::size_t each = items.size() / chunks;
  std::vector<std::int64_t> sums(chunks, 0);
  std::vector<std::size_t> filled(chunks, 0);
  for (const std::uint32_t item : items) {
    const auto chunk = static_cast<std::size_t>(std::min_element(sums.begin(), sums.end()) - sums.begin());
    begin[static_cast<std::ptrdiff_t>(chunk * each + filled[chunk])] = item;
    sums[chunk] += lengths[item];
    if (++filled[chunk] == each) sums[chunk] = std::numeric_limits<std::int64_t>::max();
  }
}

Iterator ahead(Iterator begin, Iterator end, std::size_t n) {
  return begin + std::min(static_cast<std::ptrdiff_t>(n), end - begin);
}

/// `of` in the order given by positions.
Indices picked(const Indices& of, const Indices& positions) {
  Indices out;
  out.reserve(positions.size());
  for (const std::uint32_t position : positions) out.push_back(of[position]);
  return out;
}

}  // namespace

Indices TorchRandom::permutation(std::size_t n) {
  if (n >= std::numeric_limits<std::uint32_t>::max() / 20)
    fail(ErrorKind::kUnsupported,
         "torch's permutation of {} items is not known here; use sampler: modality or length", n);
  Indices items(n);
  for (std::size_t i = 0; i < n; ++i) items[i] = static_cast<std::uint32_t>(i);
  for (std::size_t i = 0; i + 1 < n; ++i) std::swap(items[i], items[i + engine_() % (n - i)]);
  return items;
}

Indices llava_length_order(const std::vector<std::int32_t>& lengths, std::size_t batch_size,
                           std::size_t chunks, TorchRandom& random) {
  LLAVA_ASSERT(batch_size > 0 && chunks > 0, "mega-batches need a size");
  Indices order = random.permutation(lengths.size());
  for (auto begin = order.begin(); begin != order.end();) {
    const auto end = ahead(begin, order.end(), batch_size * chunks);
    std::stable_sort(begin, end, [&](std::uint32_t a, std::uint32_t b) { return lengths[a] > lengths[b]; });
    deal(begin, end, lengths, chunks);
    begin = end;
  }
  return order;
}

Indices llava_modality_order(const std::vector<std::int32_t>& lengths, std::size_t batch_size,
                             std::size_t chunks, TorchRandom& random) {
  Indices kinds[2];  // with media, without
  std::vector<std::int32_t> kind_lengths[2];
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const bool text = lengths[i] < 0;
    kinds[text].push_back(static_cast<std::uint32_t>(i));
    kind_lengths[text].push_back(text ? -lengths[i] : lengths[i]);
  }
  // With one kind alone LLaVA passes the lengths on as they are: negative ones sort the shortest first.
  if (kinds[0].empty() || kinds[1].empty()) return llava_length_order(lengths, batch_size, chunks, random);
  const std::size_t mega = batch_size * chunks;
  std::vector<std::pair<std::size_t, std::size_t>> steps;  // kind and first position
  Indices rest;
  for (const std::size_t k : {0, 1}) {
    kinds[k] = picked(kinds[k], llava_length_order(kind_lengths[k], batch_size, chunks, random));
    const std::size_t last =
        (kinds[k].size() - 1) / mega * mega;  // the last mega-batch is left out, be it whole or not
    for (std::size_t begin = 0; begin < last; begin += mega) steps.emplace_back(k, begin);
    rest.insert(rest.end(), kinds[k].begin() + static_cast<std::ptrdiff_t>(last), kinds[k].end());
  }
  Indices order;
  order.reserve(lengths.size());
  for (const std::uint32_t s : random.permutation(steps.size())) {
    const auto begin = kinds[steps[s].first].begin() + static_cast<std::ptrdiff_t>(steps[s].second);
    order.insert(order.end(), begin, begin + static_cast<std::ptrdiff_t>(mega));
  }
  std::sort(rest.begin(), rest.end());
  order.insert(order.end(), rest.begin(), rest.end());
  return order;
}

}  // namespace llava
