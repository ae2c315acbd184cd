#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "model/llava_model.h"
#include "train/optimizer.h"

namespace llava {

/// Exponential moving averages of a stage's trained weights (EMA), in float32: they start as the weights
/// and after each step become decay * average + (1 - decay) * weight, of the float32 master where there is
/// one.
class WeightAverages {
 public:
  /// `optimizer` must outlive this.
  WeightAverages(const Optimizer& optimizer, double decay);
  void update();
  /// The averages under their weights' names; the tensors themselves.
  std::vector<NamedParameter> tensors() const { return averages_; }
  /// The weights (masters too) become the averages.
  void copy_into_weights() const;

  /// While it lives the model computes with the averages; then with the weights again, bit for bit.
  class InPlace {
   public:
    explicit InPlace(const WeightAverages& averages);
    ~InPlace();
    InPlace(const InPlace&) = delete;
    InPlace& operator=(const InPlace&) = delete;

   private:
    std::vector<std::pair<at::Tensor, at::Tensor>> saved_;  ///< parameter, its values
  };

 private:
  const Optimizer& optimizer_;
  double decay_;
  std::vector<NamedParameter> averages_;
};

}  // namespace llava
