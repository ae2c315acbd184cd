#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "config/model_config.h"
#include "model/weights.h"

/// Legend: M tiles, P patches, C tower width, L selected layers
namespace llava {

/// A vision transformer: CLIP, SigLIP or DINOv2 by config. Blocks above the last selected layer do not
/// exist.
class VisionTower {
 public:
  virtual ~VisionTower() = default;
  /// Hidden states as Hugging Face counts them: [0] embeddings (after CLIP's pre-norm), [k] after block k;
  /// each [M,(1+)P,C], up to the last selected layer. pixels [M,3,S,S]; Error{kInput} on another size than
  /// config.input_size.
  virtual std::vector<at::Tensor> hidden_states(const at::Tensor& pixels) const = 0;
  /// The selected layers side by side: [M,(1+)P,L*C], class token included; DINOv2's final norm applied
  /// where configured.
  virtual at::Tensor selected(const at::Tensor& pixels) const = 0;
  virtual const TowerConfig& config() const = 0;
  /// Blocks run through this (LlavaModel::set_tower_runner).
  virtual void set_block_runner(LlavaModel::LayerRunner runner) = 0;
};

/// Index into hidden_states of a select_layers entry (negative counts from the end). Error{kFormat} if
/// there is no such layer.
std::int64_t resolve_layer(std::int64_t layer, std::int64_t num_hidden_layers);

/// Builds a tower; its weights are named `prefix` + Hugging Face's name ("vision_tower." + "embeddings.…").
std::unique_ptr<VisionTower> make_tower(const TowerConfig& config, Builder& builder,
                                        const std::string& prefix);

}  // namespace llava
