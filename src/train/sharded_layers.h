#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <memory>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "model/llava_model.h"
#include "train/optimizer.h"

namespace llava {

/// The decoder layers' weights, cut between ranks (ZeRO-3). A layer's weights are gathered when its block
/// runs and let go after it; the block is run again for the backward pass (train/activation_checkpoint.h),
/// which gathers them again, and its gradients are summed over ranks and cut at once. Every pass gathers
/// every layer, whatever the samples hold, so all ranks make the same collectives.
class ShardedLayers {
 public:
  /// Cuts the weights and sets the model's layer runner. The model's parameters keep their shapes and lose their
  /// memory until restore(). LoRA pairs are not among them.
  ShardedLayers(Collectives& group, LlavaModel& model, const std::vector<NamedParameter>& trained);
  ~ShardedLayers();

  bool has(const std::string& name) const;
  /// This rank's parts of the trained ones, for the optimizer; none that are empty.
  std::vector<NamedParameter> own_slices() const;
  /// This rank's parts of all, for a checkpoint.
  std::vector<NamedParameter> all_slices() const;
  /// Where gradients go.
  void connect(Optimizer& optimizer);
  void set_factor(double factor);
  /// As GradientBuckets::take_flags, of the trained ones.
  std::vector<float> take_flags();
  /// Names whose flag is 0.
  std::vector<std::string> names_without(const float* flags) const;
  /// Gives the model its whole weights back and takes the runner away.
  void restore();
  struct Layer;

 private:
  std::vector<NamedParameter> slices(bool trained_only) const;

  Collectives& group_;
  LlavaModel& model_;
  std::vector<c10::intrusive_ptr<Layer>> layers_;
  bool restored_ = false;
};

}  // namespace llava
