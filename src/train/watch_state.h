#pragma once
#include <cstdint>
#include <vector>

#include "base/fields.h"

namespace llava {

/// What the guard against bad steps remembers (StepGuard); part of a checkpoint.
struct GuardState {
  std::int64_t skipped = 0;         ///< steps without an update, in all
  std::int64_t skipped_in_row = 0;  ///< not finite, without a good step between
  std::int64_t spikes = 0;
  std::vector<double> losses, norms;  ///< the last finite ones of this stage, oldest first
};

/// What validation has found in a stage; part of a checkpoint.
struct ValidationState {
  std::int64_t stage = -1;      ///< the results are of this stage; -1: none yet
  std::int64_t best_step = -1;  ///< steps done over all stages when it was measured
  double best_loss = 0;
  std::int64_t since_best = 0;      ///< results after it
  std::int64_t measured_step = -1;  ///< steps done at the last result
  bool stop = false;                ///< patience is spent
};

template <class V>
void visit_fields(V& v, GuardState& s) {
  v("skipped", s.skipped), v("skipped_in_row", s.skipped_in_row), v("spikes", s.spikes);
  v("losses", s.losses), v("norms", s.norms);
}
template <class V>
void visit_fields(V& v, ValidationState& s) {
  v("stage", s.stage), v("best_step", s.best_step), v("best_loss", s.best_loss);
  v("since_best", s.since_best), v("measured_step", s.measured_step), v("stop", s.stop);
}

}  // namespace llava
