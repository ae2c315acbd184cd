#pragma once
#include <ATen/core/Tensor.h>

#include "config/model_config.h"
#include "model/decoder_stack.h"
#include "model/weights.h"

/// Legend: B rows, T tokens, D width
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
  double eps_;
  at::Tensor embedding_;
  DecoderStack layers_;
  at::Tensor norm_;
};

}  // namespace llava
