#include "model/fast_rows.h"

#include <torch/torch.h>

namespace llava {

namespace {

/// Rows of a batch as (first flat position, length) of what attends to itself.
std::vector<kernels::Stretch> stretches_of(const MultimodalBatch& batch, std::int64_t rows, std::int64_t width) {
  std::vector<kernels::Stretch> all;
  for (std::int64_t b = 0; b < rows; ++b) {
    std::int64_t begin = b * width;
    if (batch.pieces.empty()) {
      const std::int64_t length = batch.lengths.defined() ? batch.lengths[b].item<std::int64_t>() : width;
      all.push_back({begin, length});
      continue;
    }
    for (const std::int64_t length : batch.pieces[static_cast<std::size_t>(b)]) {
      all.push_back({begin, length});
      begin += length;
    }
  }
  return all;
}

/// Moves the stretches together and says where their tokens were; undefined: they were together.
at::Tensor close_ranks(std::vector<kernels::Stretch>& stretches, std::int64_t tokens) {
  std::int64_t sum = 0;
  for (const kernels::Stretch& s : stretches) sum += s.length;
  if (sum == tokens) return {};
  at::Tensor index = at::empty({sum}, at::kLong);
  auto* out = index.mutable_data_ptr<std::int64_t>();
  std::int64_t next = 0;
  for (kernels::Stretch& s : stretches) {
    for (std::int64_t i = 0; i < s.length; ++i) out[next + i] = s.begin + i;
    s.begin = next;
    next += s.length;
  }
  return index;
}

/// The mask of a plan [B or 1,1,T,T] for the kernel.
void set_mask(fused::BlockContext& context, const AttentionPlan& plan, std::int64_t width) {
  if (!plan.mask.defined()) return;
  context.mask = plan.mask.to(at::kFloat).contiguous();
  context.attention.mask = context.mask.const_data_ptr<float>();
  context.attention.mask_stride = context.mask.size(0) == 1 ? 0 : width * width;
  context.attention.mask_row = width;
}

}  // namespace

at::Tensor FastRows::gather(const at::Tensor& x) const {
  const at::Tensor flat = x.flatten(0, 1);
  return index.defined() ? flat.index_select(0, index) : flat;
}

at::Tensor FastRows::scatter(const at::Tensor& x, const at::Tensor& like) const {
  if (!index.defined()) return x.view(like.sizes());
  return at::zeros({like.size(0) * like.size(1), like.size(2)}, x.options()).index_copy(0, index, x).view(like.sizes());
}

std::unique_ptr<FastRows> plan_fast_rows(const DecoderConfig& config, const MultimodalBatch& batch,
                                         const RopeTable& rope, const at::Tensor& like, std::int64_t window) {
  const std::int64_t rows = like.size(0), width = like.size(1);
  std::int64_t longest = 0;
  fused::BlockContext context;
  kernels::AttentionShape& shape = context.attention;
  shape.heads = config.num_attention_heads, shape.kv_heads = config.num_key_value_heads, shape.width = config.head_dim;
  shape.stretches = stretches_of(batch, rows, width);
  for (const kernels::Stretch& s : shape.stretches) longest = std::max(longest, s.length);
  const bool windowed = window > 0 && longest > window;
  if (windowed && !batch.pieces.empty()) return nullptr;
  auto plan = std::make_unique<FastRows>();
  plan->index = close_ranks(shape.stretches, rows * width);
  const auto table = [&](const at::Tensor& x) {
    const at::Tensor flat = x.flatten(0, 1);
    return plan->index.defined() ? flat.index_select(0, plan->index) : flat.contiguous();
  };
  context.cos = table(rope.cos), context.sin = table(rope.sin);
  fused::BlockContext with_window = context;
  if (batch.branch.defined()) set_mask(context, plan_attention(batch, width, nullptr, 0, like), width);
  if (windowed) {
    set_mask(with_window, plan_attention(batch, width, nullptr, window, like), width);
  } else {
    with_window = context;
  }
  plan->full = std::make_shared<const fused::BlockContext>(std::move(context));
  plan->windowed = std::make_shared<const fused::BlockContext>(std::move(with_window));
  return plan;
}

}  // namespace llava
