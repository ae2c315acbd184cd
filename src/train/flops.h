#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <vector>

#include "config/model_config.h"
#include "model/llava_model.h"
#include "train/metrics.h"

namespace llava {

/// Floating-point operations a second of a large square matrix product here and now: the denominator of
/// `mfu`.
double measure_matmul_flops(c10::ScalarType dtype, c10::Device device);

/// Operations a step needs: 2 a weight and token forward, 2 for the gradient that flows through, 2 for each
/// trained weight; the head at supervised positions only; the tower unless its features are cached.
/// Attention products are left out.
double step_flops(const ModelConfig& model, const std::vector<NamedParameter>& trained,
                  const StepMetrics& metrics, bool cached);

}  // namespace llava
