#include "model/kv_cache.h"

#include <torch/torch.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"

namespace llava {
namespace {

/// Zeroed memory whose pages cost nothing until they are written (calloc maps large blocks lazily): a long
/// capacity is free until it is used. Zeros also keep masked slots finite.
at::Tensor lazy_zeros(const std::vector<std::int64_t>& shape, c10::ScalarType dtype, c10::Device device) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  if (!device.is_cpu()) return at::zeros(shape, options);
  const auto bytes = static_cast<std::size_t>(c10::multiply_integers(shape)) * c10::elementSize(dtype);
  void* memory = std::calloc(std::max<std::size_t>(bytes, 1), 1);
  if (memory == nullptr) fail(ErrorKind::kResource, "no memory for {} bytes of KV cache", bytes);
  return at::from_blob(
      memory, shape, [](void* p) { std::free(p); }, options);
}

}  // namespace

KvCache::KvCache(const DecoderConfig& config, std::int64_t batch, std::int64_t capacity,
                 c10::ScalarType dtype, c10::Device device)
    : batch_(batch), capacity_(capacity), lengths_(static_cast<std::size_t>(batch), 0) {
  LLAVA_ASSERT(batch > 0 && capacity > 0, "a cache holds something");
  const std::vector<std::int64_t> shape = {batch, config.num_key_value_heads, capacity, config.head_dim};
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    keys_.push_back(lazy_zeros(shape, dtype, device));
    values_.push_back(lazy_zeros(shape, dtype, device));
  }
}

std::int64_t KvCache::max_length() const { return *std::max_element(lengths_.begin(), lengths_.end()); }

bool KvCache::uniform() const {
  return std::all_of(lengths_.begin(), lengths_.end(), [&](std::int64_t n) { return n == lengths_[0]; });
}

void KvCache::truncate(std::int64_t length) {
  for (auto& n : lengths_) n = std::min(n, length);
}

void KvCache::truncate_row(std::int64_t row, std::int64_t length) {
  auto& n = lengths_.at(static_cast<std::size_t>(row));
  n = std::min(n, length);
}

std::pair<at::Tensor, at::Tensor> KvCache::append(std::int64_t layer, const at::Tensor& keys,
                                                  const at::Tensor& values) {
  const std::int64_t added = keys.size(2), total = max_length() + added;
  LLAVA_ASSERT(keys.size(0) == batch_, "one cache row for each batch row");
  if (total > capacity_)
    fail(ErrorKind::kResource, "the context is full: {} tokens do not fit a KV cache of {}", total,
         capacity_);
  at::Tensor& k = keys_[static_cast<std::size_t>(layer)];
  at::Tensor& v = values_[static_cast<std::size_t>(layer)];
  if (uniform()) {
    k.narrow(2, lengths_[0], added).copy_(keys);
    v.narrow(2, lengths_[0], added).copy_(values);
  } else {
    for (std::int64_t row = 0; row < batch_; ++row) {
      const std::int64_t at = lengths_[static_cast<std::size_t>(row)];
      k.select(0, row).narrow(1, at, added).copy_(keys.select(0, row));
      v.select(0, row).narrow(1, at, added).copy_(values.select(0, row));
    }
  }
  return {k.narrow(2, 0, total), v.narrow(2, 0, total)};
}

void KvCache::advance(const std::vector<std::int64_t>& added) {
  LLAVA_ASSERT(added.size() == lengths_.size(), "one count for each row");
  for (std::size_t row = 0; row < lengths_.size(); ++row) lengths_[row] += added[row];
}

}  // namespace llava
