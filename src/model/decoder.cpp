#include "model/decoder.h"

#include <torch/torch.h>

#include "model/ops.h"

namespace llava {

Decoder::Decoder(const DecoderConfig& config, Builder& builder)
    : eps_(config.rms_norm_eps),
      embedding_(builder.tensor("language_model.embed_tokens.weight", {config.vocab_size, config.hidden_size})),
      layers_(config, builder, "language_model.layers.", config.num_hidden_layers),
      norm_(builder.tensor("language_model.norm.weight", {config.hidden_size})) {}

at::Tensor Decoder::embed_tokens(const at::Tensor& ids) const { return at::embedding(embedding_, ids); }

at::Tensor Decoder::forward(const at::Tensor& embeds, const MultimodalBatch& batch, KvCache* cache,
                            const LlavaModel::LayerRunner& runner) {
  return rms_norm(layers_.forward(embeds, batch, cache, runner), norm_, eps_);
}

}  // namespace llava
