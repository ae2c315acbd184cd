#pragma once
#include <ATen/core/Tensor.h>

#include <deque>
#include <string>

#include "config/model_config.h"
#include "model/attention.h"
#include "model/fast_rows.h"
#include "model/kv_cache.h"
#include "model/rope.h"
#include "model/weights.h"

/// Legend: B rows, T tokens, D width, H heads, K kv heads, d head width
namespace llava {

/// Decoder blocks without embedding and last norm: the decoder's own, and LLaVA-Mini's pre-fusion blocks.
class DecoderStack {
 public:
  /// `layers` blocks named `prefix` + "0.", "1.", …
  DecoderStack(const DecoderConfig& config, Builder& builder, const std::string& prefix,
               std::int64_t layers);
  /// [B,T,D] -> [B,T,D]; appends to `cache` when given (lengths are advanced by the caller's batch).
  at::Tensor forward(const at::Tensor& embeds, const MultimodalBatch& batch, KvCache* cache,
                     const LlavaModel::LayerRunner& runner);

 private:
  struct Layer {
    Linear q, k, v, o, gate, up, down;
    at::Tensor input_norm, post_attention_norm;
  };
  struct Context {
    RopeTable rope;
    AttentionPlan full, windowed;
    KvCache* cache = nullptr;
    std::unique_ptr<FastRows> fast;  ///< blocks run fused, on [N,D]; the plans above are not made then
  };
  Context prepare(const at::Tensor& embeds, const MultimodalBatch& batch, KvCache* cache);
  at::Tensor block(std::size_t index, const at::Tensor& x, const Context& context) const;
  at::Tensor fused_block(std::size_t index, const at::Tensor& x, const Context& context) const;
  bool blocks_fit(const at::Tensor& embeds) const;
  fused::BlockParts parts(std::size_t index) const;
  at::Tensor attention(std::size_t index, const at::Tensor& x, const Context& context) const;
  bool is_windowed(std::size_t layer) const;
  DecoderConfig config_;
  Rope rope_;
  std::deque<Layer> layers_;
};

}  // namespace llava
