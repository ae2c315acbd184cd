#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/rng.h"
#include "config/sampling_params.h"

namespace llava {

/// Draws tokens from logits as Hugging Face's generate does: repetition penalty, then (when sampling)
/// temperature, top-k, top-p, min-p, in this order and with its tie and boundary rules; then a seeded draw.
/// Temperature 0 takes the largest logit (the first of equals).
class Sampler {
 public:
  /// Error{kUsage} for values out of range.
  explicit Sampler(const SamplingParams& params);

  /// `logits` of all ids, changed in place; `history` are the ids of prompt and answer so far (placeholders
  /// that are not ids of the vocabulary are skipped). Error{kInternal} if no id can be drawn (all logits
  /// -inf or NaN).
  std::int64_t sample(std::span<float> logits, std::span<const std::int64_t> history);

 private:
  SamplingParams params_;
  Rng rng_;
};

/// The processors, one by one; an excluded id becomes -infinity.
void apply_repetition_penalty(std::span<float> logits, std::span<const std::int64_t> history,
                              double penalty);
void apply_temperature(std::span<float> logits, double temperature);
void apply_top_k(std::span<float> logits, std::int64_t k);
void apply_top_p(std::span<float> logits, double p);
void apply_min_p(std::span<float> logits, double p);

/// float32 softmax.
std::vector<float> softmax(std::span<const float> logits);

}  // namespace llava
