#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "config/model_config.h"

/// Legend: B rows, K kv heads, T new tokens, S stored tokens, d head width
namespace llava {

/// Keys and values of the tokens seen so far, [B,K,capacity,d] for each layer, filled in place. Rows may
/// hold different numbers of tokens: row b's tokens are slots [0, lengths()[b]), what lies above is never
/// attended to.
class KvCache {
 public:
  KvCache(const DecoderConfig& config, std::int64_t batch, std::int64_t capacity, c10::ScalarType dtype,
          c10::Device device);
  std::int64_t batch() const { return batch_; }
  std::int64_t capacity() const { return capacity_; }
  /// Tokens stored in each row.
  const std::vector<std::int64_t>& lengths() const { return lengths_; }
  std::int64_t max_length() const;
  bool uniform() const;  ///< all rows hold the same number of tokens
  /// Forgets the tokens of each row beyond `length` (a turn taken back, a shared prefix kept).
  void truncate(std::int64_t length);
  void truncate_row(std::int64_t row, std::int64_t length);

  /// Puts keys and values [B,K,T,d] of one layer behind each row's tokens and returns views [B,K,S,d] with
  /// S = max length + T. Lengths change only in advance(), after the last layer. Error{kResource} beyond
  /// the capacity.
  std::pair<at::Tensor, at::Tensor> append(std::int64_t layer, const at::Tensor& keys,
                                           const at::Tensor& values);
  /// Counts `added[b]` of the T tokens just appended as real (right-padding is overwritten by the next
  /// append).
  void advance(const std::vector<std::int64_t>& added);

 private:
  std::int64_t batch_, capacity_;
  std::vector<std::int64_t> lengths_;
  std::vector<at::Tensor> keys_, values_;
};

}  // namespace llava
