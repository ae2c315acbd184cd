#include "train/loss_scale.h"

namespace llava {

void LossScale::update(bool overflow, const LossScaleConfig& config) {
  if (overflow) {
    if (scale / 2 < config.min)
      throw Error(ErrorKind::kInternal,
                  fmt::format("gradients overflow float16 even with a loss scale of {}", scale),
                  "train in bfloat16 or float32, or lower the learning rate");
    scale /= 2, good_steps = 0;
  } else if (++good_steps >= config.growth_interval) {
    scale *= 2, good_steps = 0;
  }
}

}  // namespace llava
