#include "model/attention.h"

#include <torch/torch.h>

#include <limits>
#include <numeric>

#include "base/error.h"
#include "config/branch.h"
#include "model/attention_varlen.h"
#include "model/kv_cache.h"

namespace llava {
namespace {

at::Tensor additive(const at::Tensor& allowed, const at::Tensor& like) {
  const at::Tensor zeros = at::zeros(allowed.sizes(), like.options());
  return zeros.masked_fill(allowed.logical_not(), -std::numeric_limits<float>::infinity()).unsqueeze(1);
}

/// Slot of each query, [B,T] or [1,T] where all rows agree.
at::Tensor query_slots(const KvCache* cache, std::int64_t num_tokens, const at::Device& device) {
  const at::Tensor steps =
      at::arange(num_tokens, at::TensorOptions().dtype(at::kLong).device(device)).unsqueeze(0);
  if (cache == nullptr) return steps;
  if (cache->uniform()) return steps + cache->lengths()[0];
  return steps + at::tensor(cache->lengths(), at::kLong).to(device).unsqueeze(1);
}

/// A token sees the shared prefix (branch 0), its group's node and the earlier tokens of its own branch
/// (Prompt::branch); a window counts rotary positions.
at::Tensor branch_allowed(const MultimodalBatch& batch, const at::Tensor& causal, std::int64_t window,
                          const at::Device& device) {
  const at::Tensor branch = batch.branch.to(device), own = branch.unsqueeze(2), other = branch.unsqueeze(1);
  const at::Tensor node = own.sub(own.remainder(kBranchGroup));
  at::Tensor allowed =
      causal.logical_and(other.eq(0).logical_or(other.eq(own)).logical_or(other.eq(node)));  // [B,T,T]
  if (window > 0) {
    const at::Tensor positions = batch.positions.to(device);
    allowed = allowed.logical_and((positions.unsqueeze(2) - positions.unsqueeze(1)).lt(window));
  }
  return allowed;
}

at::Tensor expand_heads(const at::Tensor& x, std::int64_t groups) {
  const std::int64_t b = x.size(0), k = x.size(1), s = x.size(2), d = x.size(3);
  return x.unsqueeze(2).expand({b, k, groups, s, d}).reshape({b, k * groups, s, d});
}

}  // namespace

at::Tensor attend_pieces(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan) {
  std::vector<at::Tensor> rows;
  for (std::int64_t b = 0; b < q.size(0); ++b) {
    std::vector<at::Tensor> parts;
    std::int64_t begin = 0;
    for (const std::int64_t length : plan.pieces[static_cast<std::size_t>(b)]) {
      const auto piece = [&](const at::Tensor& x) { return x.narrow(0, b, 1).narrow(2, begin, length); };
      AttentionPlan own{true, {}, 0, {}};
      if (plan.window > 0 && length > plan.window) {
        const at::Tensor keys = at::arange(length, at::TensorOptions().dtype(at::kLong).device(q.device()));
        const at::Tensor behind = keys.unsqueeze(1) - keys.unsqueeze(0);
        own = {false, {}, 0, additive(behind.ge(0).logical_and(behind.lt(plan.window)).unsqueeze(0), q)};
      }
      parts.push_back(attend(piece(q), piece(k), piece(v), own));
      begin += length;
    }
    rows.push_back(at::cat(parts, 1));
  }
  return at::cat(rows);
}

AttentionPlan plan_attention(const MultimodalBatch& batch, std::int64_t num_tokens, const KvCache* cache,
                             std::int64_t window, const at::Tensor& like) {
  const std::int64_t past = cache == nullptr ? 0 : cache->max_length(), total = past + num_tokens;
  const bool windowed = window > 0 && total > window;
  if (batch.branch.defined() && cache != nullptr)
    fail(ErrorKind::kInternal, "branches cannot be decoded with a cache");
  if (!batch.pieces.empty()) {
    if (batch.branch.defined() || cache != nullptr)
      fail(ErrorKind::kInternal, "packed rows know neither branches nor a cache");
    AttentionPlan plan{true, batch.pieces, window, {}};
    for (std::vector<std::int64_t>& row : plan.pieces) {
      const std::int64_t used = std::accumulate(row.begin(), row.end(), std::int64_t{0});
      LLAVA_ASSERT(used <= num_tokens, "a row's samples fit into it");
      if (used < num_tokens) row.push_back(num_tokens - used);  // padding, by itself
    }
    if (like.is_cuda()) plan.starts = piece_starts(plan.pieces).to(like.device());
    return plan;
  }
  if (!windowed && !batch.branch.defined()) {
    // right padding lies behind the real tokens, so causality alone hides it
    if (past == 0) return {true, {}, 0, {}};
    if (num_tokens == 1 && cache->uniform()) return {};
  }
  const at::Device device = like.device();
  const at::Tensor queries = query_slots(cache, num_tokens, device).unsqueeze(2);  // [B or 1,T,1]
  const at::Tensor keys = at::arange(total, queries.options()).view({1, 1, total});
  at::Tensor allowed = keys.le(queries);
  if (batch.branch.defined()) {
    allowed = branch_allowed(batch, allowed, windowed ? window : 0, device);
  } else if (windowed) {
    allowed = allowed.logical_and((queries - keys).lt(window));
  }
  return {false, {}, 0, additive(allowed, like)};
}

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const AttentionPlan& plan) {
  const std::int64_t b = q.size(0), h = q.size(1), t = q.size(2), d = q.size(3), groups = h / k.size(1);
  if (!plan.pieces.empty()) {
    const std::optional<at::Tensor> at_once = attend_varlen(q, k, v, plan);
    return at_once ? *at_once : attend_pieces(q, k, v, plan);
  }
  const auto mask = plan.mask.defined() ? std::optional<at::Tensor>(plan.mask) : std::nullopt;
  if (groups > 1 && t == 1 && !plan.causal) {
    // one query: the heads of a group are rows against the same keys, so the cache is read once and never
    // copied
    const at::Tensor rows = q.reshape({b, k.size(1), groups, d});
    return at::scaled_dot_product_attention(rows, k, v, mask).reshape({b, 1, h * d});
  }
  const at::Tensor keys = groups > 1 ? expand_heads(k, groups) : k,
                   values = groups > 1 ? expand_heads(v, groups) : v;
  return at::scaled_dot_product_attention(q, keys, values, mask, 0.0, plan.causal)
      .transpose(1, 2)
      .reshape({b, t, h * d});
}

}  // namespace llava
