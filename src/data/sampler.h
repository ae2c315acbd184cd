#pragma once
#include <cstdint>
#include <vector>

#include "data/dataset.h"

namespace llava {

/// In which order a stage sees its samples; a pure function of the seed and the epoch, so a run can go on
/// from any step.
///
/// One epoch takes every source `weight` times: whole passes, and for the fraction a random part drawn anew
/// each epoch.
///  random      shuffled
///  length      shuffled, sorted by length within 32 steps' samples, cut into steps, steps shuffled: little
///  padding modality    as length, image and text-only samples in steps of their own; what is left of both
///  ends the epoch mixed sequential  as in the files
class SampleOrder {
 public:
  SampleOrder(const Dataset& dataset, SamplerKind kind, std::int64_t samples_per_step, std::uint64_t seed);
  std::int64_t samples_per_epoch() const { return samples_per_epoch_; }
  std::int64_t steps_per_epoch() const;
  /// Steps of a stage: max_steps if given, else whole epochs, a last short step included.
  std::int64_t total_steps(std::int64_t max_steps, double epochs) const;
  /// Data set indices of the samples of a step (step 0 is the stage's first).
  std::vector<std::size_t> step_samples(std::int64_t step) const;
  /// The whole epoch in order.
  std::vector<std::size_t> epoch(std::int64_t epoch) const;

 private:
  std::vector<std::size_t> draw_mixture(std::uint64_t seed) const;

  const Dataset& dataset_;
  SamplerKind kind_;
  std::int64_t samples_per_step_;
  std::uint64_t seed_;
  std::int64_t samples_per_epoch_ = 0;
  mutable std::int64_t cached_epoch_ = -1;
  mutable std::vector<std::size_t> cached_;
};

}  // namespace llava
