#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "config/model_config.h"
#include "model/weights.h"

namespace llava {

/// mm_projector: tower features to decoder embeddings (ConnectorConfig says the steps).
class Connector {
 public:
  Connector(const ConnectorConfig& config, Builder& builder);
  /// [M,P,C] -> [M,n,D]; with a class token P counts it (first row), n likewise.
  at::Tensor forward(const at::Tensor& features) const;

 private:
  at::Tensor merge_patches(const at::Tensor& patches) const;
  at::Tensor run(const std::vector<Linear>& layers, at::Tensor x) const;
  ConnectorConfig config_;
  LayerNorm norm_;
  std::vector<Linear> layers_, class_token_;
};

}  // namespace llava
