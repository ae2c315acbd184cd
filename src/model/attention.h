#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/batch.h"

/// Legend: B rows, H heads, K kv heads, T queries, S keys, d head width
namespace llava {

class KvCache;

/// Who sees whom in one forward pass, made once and shared by all layers.
struct AttentionPlan {
  bool causal = false;  ///< plain causal over the new tokens themselves: no mask needed
  std::vector<std::vector<std::int64_t>> pieces;  ///< lengths in each row that see themselves only, up to T; or empty
  std::int64_t window = 0;                        ///< within the pieces
  at::Tensor mask;      ///< [B or 1,1,T,S] additive in the model's dtype, or undefined: all keys are seen
  at::Tensor starts{};  ///< [P+1] int32, piece_starts() where a kernel wants them; else undefined
};

/// `window` 0: none. Without a cache keys are the batch's own tokens; with one they are its slots [0, max
/// length + T). Error{kInternal} for branches together with a cache.
AttentionPlan plan_attention(const MultimodalBatch& batch, std::int64_t num_tokens, const KvCache* cache,
                             std::int64_t window, const at::Tensor& like);

/// softmax(q k^T / sqrt(d) + mask) v: q [B,H,T,d], k and v [B,K,S,d] -> [B,T,H*d].
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan);

/// The same where the plan has pieces, one after the other: no product between samples is ever made.
at::Tensor attend_pieces(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const AttentionPlan& plan);

}  // namespace llava
