#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/model_config.h"

namespace llava {

/// Frequencies of the rotary embedding and the factor on its cosines and sines.
struct RopeParameters {
  at::Tensor inv_freq;  ///< [d/2] float32
  double attention_scaling = 1.0;
};

/// As transformers 4.57's ROPE_INIT_FUNCTIONS compute them; `seq_len` matters for the dynamic type only.
RopeParameters rope_parameters(const DecoderConfig& config, std::int64_t seq_len);

/// cos and sin [B,T,d/2] float32 for a batch of positions.
struct RopeTable {
  at::Tensor cos, sin;
};

/// Makes tables for batches; keeps the last table of consecutive positions so that each step only looks
/// rows up.
class Rope {
 public:
  explicit Rope(const DecoderConfig& config) : config_(config) {}
  /// positions [B,T] int64, on the device wanted. `lengths` [B] (or undefined: T each) are the real tokens:
  /// the dynamic type takes each row's own largest position + 1 as the sequence length, so that a row's
  /// result does not depend on its batch.
  RopeTable table(const at::Tensor& positions, const at::Tensor& lengths);

 private:
  RopeTable dynamic_table(const at::Tensor& positions, const at::Tensor& lengths) const;
  void grow(std::int64_t positions, const at::Device& device);
  DecoderConfig config_;
  at::Tensor cos_, sin_;  ///< [positions, d/2]
};

}  // namespace llava
