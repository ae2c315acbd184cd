#pragma once
#include <ATen/core/Tensor.h>

#include <deque>

#include "config/model_config.h"
#include "model/attention.h"
#include "model/kv_cache.h"
#include "model/rope.h"
#include "model/weights.h"

/// Legend: B rows, T tokens, D width, H heads, K kv heads, d head width
namespace llava {

/// Llama, Vicuna, Mistral, Qwen2 by config. Weights are language_model.*.
class Decoder {
 public:
  Decoder(const DecoderConfig& config, Builder& builder);
  at::Tensor embed_tokens(const at::Tensor& ids) const;  ///< [B,T] -> [B,T,D]
  /// Embeddings [B,T,D] -> hidden states after the last norm [B,T,D]; appends to `cache` when given.
  at::Tensor forward(const at::Tensor& embeds, const MultimodalBatch& batch, KvCache* cache,
                     const LlavaModel::LayerRunner& runner);
  const at::Tensor& embedding() const { return embedding_; }

 private:
  struct Layer {
    Linear q, k, v, o, gate, up, down;
    at::Tensor input_norm, post_attention_norm;
  };
  struct Context {
    RopeTable rope;
    AttentionPlan full, windowed;
    KvCache* cache = nullptr;
  };
  Context prepare(const at::Tensor& embeds, const MultimodalBatch& batch, KvCache* cache);
  at::Tensor block(std::size_t index, const at::Tensor& x, const Context& context) const;
  at::Tensor attention(std::size_t index, const at::Tensor& x, const Context& context) const;
  bool is_windowed(std::size_t layer) const;
  DecoderConfig config_;
  Rope rope_;
  at::Tensor embedding_, norm_;
  std::deque<Layer> layers_;
};

}  // namespace llava
