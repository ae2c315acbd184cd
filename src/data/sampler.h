#pragma once
#include <cstdint>
#include <vector>

#include "data/dataset.h"

namespace llava {

/// How the samples of a stage are ordered and cut: a step is `grad_accum` batches of `batch_size`, however many
/// processes share it.
struct OrderOptions {
  SamplerKind kind = SamplerKind::kRandom;
  std::int64_t batch_size = 1, grad_accum = 1;
  std::uint64_t seed = 0;
  std::int64_t samples_per_step() const { return batch_size * grad_accum; }
};

/// In which order a stage sees its samples; a pure function of the seed and the epoch, so a run can go on
/// from any step.
///
/// One epoch takes every source `weight` times: whole passes, and for the fraction a random part drawn anew
/// each epoch.
///  random          shuffled
///  length          shuffled, sorted by length within 32 steps' samples, cut into steps, steps shuffled: little
///                  padding
///  modality        as length, image and text-only samples in steps of their own; what is left of both ends the
///                  epoch mixed
///  sequential      as in the files
///  llava_length    the very order of LLaVA's group_by_length (an image counts 128 words), torch seeded with
///                  seed + epoch; its processes times its accumulated batches are `grad_accum` here
///  llava_modality  that of its group_by_modality_length, with which LLaVA-1.5 was tuned
/// Memory: four bytes a sample of an epoch, up to three times that while an epoch is drawn.
class SampleOrder {
 public:
  using Indices = std::vector<std::uint32_t>;

  SampleOrder(const Dataset& dataset, const OrderOptions& options);
  /// One process, one batch a step.
  SampleOrder(const Dataset& dataset, SamplerKind kind, std::int64_t samples_per_step, std::uint64_t seed)
      : SampleOrder(dataset, {kind, samples_per_step, 1, seed}) {}
  const OrderOptions& options() const { return options_; }
  std::int64_t samples_per_epoch() const { return samples_per_epoch_; }
  std::int64_t steps_per_epoch() const;
  /// Steps of a stage: max_steps if given, else whole epochs, a last short step included.
  std::int64_t total_steps(std::int64_t max_steps, double epochs) const;
  /// Data set indices of all samples of a step (step 0 is the stage's first), whichever process takes them.
  std::vector<std::size_t> step_samples(std::int64_t step) const;
  /// The whole epoch in order.
  Indices epoch(std::int64_t epoch) const;

 private:
  Indices draw_mixture(std::uint64_t seed) const;
  Indices llava_epoch(Indices items, std::uint64_t seed) const;

  const Dataset& dataset_;
  OrderOptions options_;
  std::int64_t samples_per_epoch_ = 0;
  mutable std::int64_t cached_epoch_ = -1;
  mutable Indices cached_;
};

}  // namespace llava
