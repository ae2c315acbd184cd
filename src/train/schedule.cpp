#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace llava {

double schedule_multiplier(const ScheduleConfig& schedule, std::int64_t step, std::int64_t total_steps) {
  const auto warmup =
      static_cast<std::int64_t>(std::ceil(schedule.warmup_ratio * static_cast<double>(total_steps)));
  if (step < warmup) return static_cast<double>(step) / static_cast<double>(warmup);
  const double done =
      std::min(1.0, static_cast<double>(step - warmup) /
                        static_cast<double>(std::max<std::int64_t>(1, total_steps - warmup)));
  double value = 1.0;
  switch (schedule.name) {
    case ScheduleKind::kConstant:
      break;
    case ScheduleKind::kLinear:
      value = 1.0 - done;
      break;
    case ScheduleKind::kWsd:
      value = schedule.decay_ratio > 0 ? std::min(1.0, (1.0 - done) / schedule.decay_ratio) : 1.0;
      break;
    case ScheduleKind::kCosine:
      value = 0.5 * (1.0 + std::cos(std::numbers::pi * done));
      break;
  }
  return schedule.min_ratio + (1.0 - schedule.min_ratio) * value;
}

}  // namespace llava
