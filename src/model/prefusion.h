#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>
#include <vector>

#include "config/model_config.h"
#include "model/decoder_stack.h"
#include "model/weights.h"

/// Legend: F frames, V views of a frame, P patches, C tower width, n tokens of a frame, T text tokens, D decoder width
namespace llava {

/// LLaVA-Mini's compression of a view to a few tokens: learnt queries attend to its features (specification
/// 1.8.1). Weights are compressor.*.
class Compressor {
 public:
  Compressor(const CompressorConfig& config, std::int64_t width, Builder& builder);
  /// [F,P,C] -> [F,n,C]; P is a square.
  at::Tensor operator()(const at::Tensor& features) const;

 private:
  at::Tensor query_, positions_, in_weight_, in_bias_;
  LayerNorm query_norm_, feature_norm_;
  Linear out_;
};

/// Its pre-fusion: decoder blocks that read a frame's features, its compressed tokens and the prompt's text, in
/// this order (1.8.2, 1.8.3). Weights are prefusion_layers.*.
class Prefusion {
 public:
  using Project = std::function<at::Tensor(const at::Tensor&)>;
  Prefusion(const ModelConfig& model, Builder& builder);

  struct Fused {
    at::Tensor media;  ///< [F,n,D]
    at::Tensor text;   ///< [F,T,D]
  };
  /// Tower features [F*V,P,C] and text embeddings [T,D], the same for every frame. `project` is the connector.
  Fused operator()(const at::Tensor& features, const at::Tensor& text, const Project& project);

 private:
  /// [F*V,P,C] -> what the compressor looks at [F,P',C] and what stands before the compressed tokens [F,P'',D].
  std::pair<at::Tensor, at::Tensor> views(const at::Tensor& features, const Project& project) const;
  CompressorConfig config_;
  Compressor compressor_;
  DecoderStack layers_;
};

/// The embeddings of one prompt whose media come a few frames at a time, so that hours of film need the memory of
/// those few: their tokens are kept, the fused text is summed in float32 and is the mean over all frames (1.8.4).
class PromptFusion {
 public:
  /// `embeds` [T,D] of ids [T], with places for media at `media` [N]. Text takes part where its id is above 0
  /// and, with `labels` [T], where it is not trained.
  PromptFusion(Prefusion& prefusion, Prefusion::Project project, at::Tensor embeds, const at::Tensor& ids,
               const at::Tensor& labels, at::Tensor media);
  /// Tower features [F*V,P,C] of the next frames.
  void add(const at::Tensor& features);
  /// [T,D]. Error{kInternal} unless the frames' tokens fill the places.
  at::Tensor finish();

 private:
  Prefusion& prefusion_;
  Prefusion::Project project_;
  at::Tensor embeds_, media_, text_at_, text_, text_sum_;
  std::int64_t frames_ = 0;
  std::vector<at::Tensor> rows_;
};

}  // namespace llava
