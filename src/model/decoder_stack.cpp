#include "model/decoder_stack.h"

#include <torch/torch.h>

#include <memory>

#include "base/error.h"
#include "model/ops.h"

namespace llava {

DecoderStack::DecoderStack(const DecoderConfig& config, Builder& builder, const std::string& prefix,
                           std::int64_t layers)
    : config_(config), rope_(config) {
  const std::int64_t width = config.hidden_size, ffn = config.intermediate_size;
  const std::int64_t q_size = config.num_attention_heads * config.head_dim;
  const std::int64_t kv_size = config.num_key_value_heads * config.head_dim;
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string name = fmt::format("{}{}.", prefix, i);
    Layer& layer = layers_.emplace_back();
    builder.linear(layer.q, name + "self_attn.q_proj", width, q_size, config.attention_bias);
    builder.linear(layer.k, name + "self_attn.k_proj", width, kv_size, config.attention_bias);
    builder.linear(layer.v, name + "self_attn.v_proj", width, kv_size, config.attention_bias);
    builder.linear(layer.o, name + "self_attn.o_proj", q_size, width, config.attention_out_bias);
    builder.linear(layer.gate, name + "mlp.gate_proj", width, ffn, config.mlp_bias);
    builder.linear(layer.up, name + "mlp.up_proj", width, ffn, config.mlp_bias);
    builder.linear(layer.down, name + "mlp.down_proj", ffn, width, config.mlp_bias);
    builder.place(layer.input_norm, name + "input_layernorm.weight", {width});
    builder.place(layer.post_attention_norm, name + "post_attention_layernorm.weight", {width});
  }
}

at::Tensor DecoderStack::forward(const at::Tensor& embeds, const MultimodalBatch& batch, KvCache* cache,
                            const LlavaModel::LayerRunner& runner) {
  // shared: a runner that recomputes activations calls blocks again during the backward pass
  const auto context = std::make_shared<const Context>(prepare(embeds, batch, cache));
  at::Tensor x = context->fast ? context->fast->gather(embeds) : embeds;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    if (runner) {
      x = runner(
          static_cast<int>(i), [this, i, context](const at::Tensor& in) { return block(i, in, *context); },
          x);
    } else {
      x = block(i, x, *context);
    }
  }
  if (cache != nullptr) {
    std::vector<std::int64_t> added(static_cast<std::size_t>(embeds.size(0)), embeds.size(1));
    if (batch.lengths.defined()) {
      const at::Tensor lengths = batch.lengths.cpu().contiguous();
      added.assign(lengths.const_data_ptr<std::int64_t>(),
                   lengths.const_data_ptr<std::int64_t>() + lengths.numel());
    }
    cache->advance(added);
  }
  return context->fast ? context->fast->scatter(x, embeds) : x;
}

DecoderStack::Context DecoderStack::prepare(const at::Tensor& embeds, const MultimodalBatch& batch, KvCache* cache) {
  const at::NoGradGuard no_grad;
  Context context;
  context.cache = cache;
  context.rope = rope_.table(batch.positions.to(embeds.device()), batch.lengths);
  const std::int64_t tokens = embeds.size(1);
  if (cache == nullptr && blocks_fit(embeds))
    context.fast = plan_fast_rows(config_, batch, context.rope, embeds, config_.sliding_window);
  if (context.fast) return context;
  context.full = plan_attention(batch, tokens, cache, 0, embeds);
  if (config_.sliding_window > 0)
    context.windowed = plan_attention(batch, tokens, cache, config_.sliding_window, embeds);
  return context;
}

at::Tensor DecoderStack::block(std::size_t index, const at::Tensor& x, const Context& context) const {
  if (context.fast) return fused_block(index, x, context);
  const Layer& layer = layers_[index];
  const at::Tensor h = x + attention(index, rms_norm(x, layer.input_norm, config_.rms_norm_eps), context);
  const at::Tensor normed = rms_norm(h, layer.post_attention_norm, config_.rms_norm_eps);
  return h + layer.down(gated(layer.gate(normed), layer.up(normed), config_.hidden_act));
}

fused::BlockParts DecoderStack::parts(std::size_t index) const {
  const Layer& l = layers_[index];
  return {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down, l.input_norm, l.post_attention_norm, config_.rms_norm_eps};
}

bool DecoderStack::blocks_fit(const at::Tensor& embeds) const {
  if (config_.hidden_act != Activation::kSilu) return false;
  for (std::size_t i = 0; i < layers_.size(); ++i)
    if (!fused::block_fits(parts(i), embeds, config_.head_dim)) return false;
  return true;
}

at::Tensor DecoderStack::fused_block(std::size_t index, const at::Tensor& x, const Context& context) const {
  return fused::decoder_block(parts(index), x, is_windowed(index) ? context.fast->windowed : context.fast->full);
}

at::Tensor DecoderStack::attention(std::size_t index, const at::Tensor& x, const Context& context) const {
  const Layer& layer = layers_[index];
  const std::int64_t b = x.size(0), t = x.size(1), d = config_.head_dim;
  at::Tensor q =
      rotate(layer.q(x).view({b, t, config_.num_attention_heads, d}), context.rope.cos, context.rope.sin);
  at::Tensor k =
      rotate(layer.k(x).view({b, t, config_.num_key_value_heads, d}), context.rope.cos, context.rope.sin);
  at::Tensor v = layer.v(x).view({b, t, config_.num_key_value_heads, d});
  q = q.transpose(1, 2), k = k.transpose(1, 2), v = v.transpose(1, 2);  // [B,H,T,d], [B,K,T,d]
  if (context.cache != nullptr)
    std::tie(k, v) = context.cache->append(static_cast<std::int64_t>(index), k, v);  // [B,K,S,d]
  return layer.o(attend(q, k, v, is_windowed(index) ? context.windowed : context.full));
}

bool DecoderStack::is_windowed(std::size_t layer) const {
  return config_.sliding_window > 0 && static_cast<std::int64_t>(layer) >= config_.first_sliding_layer;
}

}  // namespace llava
