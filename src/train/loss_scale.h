#pragma once
#include <cstdint>

#include "base/error.h"
#include "base/fields.h"
#include "config/optim_config.h"

namespace llava {

/// float16's dynamic loss scale: halved when a step's gradients overflow (that step moves nothing), doubled
/// after growth_interval good steps, as torch.amp.GradScaler. Both numbers belong in a checkpoint.
struct LossScale {
  double scale = 1;
  std::int64_t good_steps = 0;  ///< since the scale last changed

  /// Counts a step. Error{kInternal} when the scale would fall below the config's `min`.
  void update(bool overflow, const LossScaleConfig& config);
};

template <class V>
void visit_fields(V& v, LossScale& s) {
  v("scale", s.scale), v("good_steps", s.good_steps);
}

}  // namespace llava
