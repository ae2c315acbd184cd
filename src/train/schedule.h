#pragma once
#include <cstdint>

#include "config/stage_config.h"

namespace llava {

/// What a step's peak rate is multiplied with: 0 at step 0 of a warm-up, 1 at its end (ceil(ratio * total)
/// steps), then down to min_ratio by the schedule. The same numbers as transformers'
/// get_cosine/linear_schedule_with_warmup. wsd: 1 until the last decay_ratio of the steps after the warm-up,
/// then a line down.
double schedule_multiplier(const ScheduleConfig& schedule, std::int64_t step, std::int64_t total_steps);

}  // namespace llava
