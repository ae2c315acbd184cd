#pragma once
#include "base/json.h"
#include "config/model_config.h"
#include "vision/media_plan.h"

namespace llava {

/// What an image or a film costs in a model: operations (10^9) of tower, pre-fusion and prefill, bytes of keys and
/// values and of what is kept until the prompt is whole, and the sum with the weights, all at the checkpoint's
/// precision and with 1,000 tokens of text beside it.
OrderedJson media_cost(const MediaPlan& plan, const ModelConfig& model);

}  // namespace llava
