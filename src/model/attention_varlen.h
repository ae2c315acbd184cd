#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "model/attention.h"

/// Legend: B rows, H heads, K kv heads, T queries, d head width, P pieces over all rows
namespace llava {

/// Flash attention over samples of different lengths in one kernel (CUDA; torch.nn.attention.varlen's
/// operator), for the pieces of `plan`, which cover all tokens: q [B,H,T,d], k and v [B,K,T,d] ->
/// [B,T,H*d]. None where the device, the dtype or d has no such kernel, or where it did not agree with
/// piece-by-piece attention on a small example, which the first call tries (forward and gradients) and
/// warns about.
std::optional<at::Tensor> attend_varlen(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                        const AttentionPlan& plan);

/// Where the pieces begin in the rows laid end to end, and the end of the last: [P+1] int32 on the CPU.
at::Tensor piece_starts(const std::vector<std::vector<std::int64_t>>& pieces);

}  // namespace llava
