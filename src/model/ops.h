#pragma once
#include <ATen/core/Tensor.h>

#include "config/model_config.h"

/// The few operations LibTorch lacks or runs slowly on a CPU. All are differentiable.
namespace llava {

at::Tensor activate(const at::Tensor& x, Activation act);

/// x / sqrt(mean(x^2) + eps) over the last dimension in float32, cast back, times weight. As HF's
/// LlamaRMSNorm.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// act(gate) * up.
at::Tensor gated(const at::Tensor& gate, const at::Tensor& up, Activation act);

/// Rotates the halves of each head: x [B,T,H,d], cos and sin [B,T,d/2] float32; returns [B,T,H,d].
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// Cross-entropy of hidden rows [N,D] against `targets` [N] with the head [V,D]: the float32 sum over rows.
/// Logits exist for `chunk` rows at a time only; gradients of hidden and head are made in the same pass.
/// bfloat16 on a CPU that is slow at it is widened (fused_block.h).
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                                std::int64_t chunk);

/// log softmax(hidden head^T / temperature) at `targets`: float32 [N], one value a row. As above, logits
/// exist for `chunk` rows at a time; each value has its own gradient.
at::Tensor linear_log_probs(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                            double temperature, std::int64_t chunk);

/// Rows whose logits may be alive at once: 64 MiB of float32.
std::int64_t loss_chunk(std::int64_t vocab_size);

}  // namespace llava
