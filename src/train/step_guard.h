#pragma once
#include <optional>
#include <string>

#include "config/watch_config.h"
#include "train/watch_state.h"

namespace llava {

/// What the guard says of a step, before its update.
struct StepVerdict {
  bool update = true;
  bool abort = false;
  std::string reason;  ///< "": a usual step; else what is noted with the samples
};

/// Judges steps by their loss and gradient norm (the same numbers on every rank, so all ranks agree).
///
/// Not finite: abort, or skip the update, up to `max_nonfinite_skips` times in a row. A spike is a loss or
/// norm whose distance to the mean of the window, in standard deviations, is above `spike_zscore`; it is
/// warned of or skipped. Finite values enter the window in either case, so a level that stays is soon no
/// spike any more.
StepVerdict judge_step(const GuardConfig& config, GuardState& state, double loss, double norm);

/// (value - mean) / standard deviation of `window`; 0 for a window that does not vary.
double zscore(const std::vector<double>& window, double value);

}  // namespace llava
