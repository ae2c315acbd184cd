#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace llava {

namespace {

constexpr float kExcluded = -std::numeric_limits<float>::infinity();

std::int64_t argmax(std::span<const float> logits) {
  const auto best = std::max_element(logits.begin(), logits.end());
  return best - logits.begin();
}

}  // namespace

std::vector<float> softmax(std::span<const float> logits) {
  std::vector<float> probabilities(logits.size());
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) sum += probabilities[i] = std::exp(logits[i] - top);
  for (float& p : probabilities) p = static_cast<float>(p / sum);
  return probabilities;
}

void apply_repetition_penalty(std::span<float> logits, std::span<const std::int64_t> history,
                              double penalty) {
  if (penalty == 1.0) return;
  std::vector<std::int64_t> ids(history.begin(), history.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  const auto factor = static_cast<float>(penalty);
  for (const std::int64_t id : ids) {
    if (id < 0 || id >= static_cast<std::int64_t>(logits.size())) continue;
    float& logit = logits[static_cast<std::size_t>(id)];
    logit = logit < 0 ? logit * factor : logit / factor;
  }
}

void apply_temperature(std::span<float> logits, double temperature) {
  for (float& logit : logits) logit = static_cast<float>(logit / temperature);
}

void apply_top_k(std::span<float> logits, std::int64_t k) {
  if (k <= 0 || k >= static_cast<std::int64_t>(logits.size())) return;
  std::vector<float> sorted(logits.begin(), logits.end());
  std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<>());
  const float smallest_kept = sorted[static_cast<std::size_t>(k - 1)];
  for (float& logit : logits)
    if (logit < smallest_kept) logit = kExcluded;  // equals of the k-th stay, as in HF
}

void apply_top_p(std::span<float> logits, double p) {
  if (p >= 1.0) return;
  const std::vector<float> probabilities = softmax(logits);
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] < logits[b]; });
  const auto limit = static_cast<float>(1.0 - p);
  double cumulative = 0;  // torch sums a float tensor in double on the CPU
  for (std::size_t i = 0; i + 1 < order.size(); ++i) {
    cumulative += probabilities[order[i]];
    if (static_cast<float>(cumulative) <= limit) logits[order[i]] = kExcluded;
  }
}

void apply_min_p(std::span<float> logits, double p) {
  if (p <= 0.0) return;
  const std::vector<float> probabilities = softmax(logits);
  const float limit = static_cast<float>(p) * *std::max_element(probabilities.begin(), probabilities.end());
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (probabilities[i] < limit) logits[i] = kExcluded;
}

Sampler::Sampler(const SamplingParams& params) : params_(params), rng_(params.seed) { params_.validate(); }

std::int64_t Sampler::sample(std::span<float> logits, std::span<const std::int64_t> history) {
  LLAVA_ASSERT(!logits.empty(), "there are logits to sample from");
  apply_repetition_penalty(logits, history, params_.repetition_penalty);
  const std::int64_t best = argmax(logits);
  const float top = logits[static_cast<std::size_t>(best)];
  if (!(top > kExcluded && top < std::numeric_limits<float>::infinity()))
    fail(ErrorKind::kInternal, "the model's logits are not finite (largest is {})", top);
  if (params_.temperature == 0.0) return best;
  apply_temperature(logits, params_.temperature);
  apply_top_k(logits, params_.top_k);
  apply_top_p(logits, params_.top_p);
  apply_min_p(logits, params_.min_p);
  const std::vector<float> probabilities = softmax(logits);
  double rest = rng_.uniform();
  std::int64_t last = best;
  for (std::size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] <= 0) continue;
    last = static_cast<std::int64_t>(i);
    rest -= probabilities[i];
    if (rest < 0) break;
  }
  return last;
}

}  // namespace llava
