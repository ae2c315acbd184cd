#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <vector>

#include "config/gradient_checkpointing.h"
#include "config/model_config.h"
#include "config/stage_config.h"
#include "model/llava_model.h"
#include "train/metrics.h"

namespace llava {

/// Floating-point operations a second of a large square matrix product here and now: the denominator of
/// `mfu`.
double measure_matmul_flops(c10::ScalarType dtype, c10::Device device);

/// Operations a step needs, without padding and without what is computed twice: 2 a weight and token
/// forward, 2 for the gradient that flows through, 2 for each trained weight; attention products over whole
/// squares of a sample's tokens, as is usual (12 layers * width * tokens^2 with the backward pass); the
/// head at supervised positions only; the tower unless its features are cached; nothing of the decoder
/// where the objective is answer_embedding. A test counts the products that run and compares.
double step_flops(const ModelConfig& model, const std::vector<NamedParameter>& trained,
                  const StepMetrics& metrics, Objective objective, bool cached);

/// Operations that gradient checkpointing does a second time: the forward pass of its blocks.
double recomputed_flops(const ModelConfig& model, const std::vector<NamedParameter>& trained,
                        const StepMetrics& metrics, Objective objective,
                        const GradientCheckpointing& policy, bool cached);

}  // namespace llava
