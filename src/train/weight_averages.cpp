#include "train/weight_averages.h"

#include <torch/torch.h>

namespace llava {

namespace {

/// What is averaged of a parameter: the float32 value that the optimizer moves, unless it holds a part
/// only.
const at::Tensor& averaged_source(const TrainedParameter& p) {
  return p.master.sizes() == p.parameter.sizes() ? p.master : p.parameter;
}

}  // namespace

WeightAverages::WeightAverages(const Optimizer& optimizer, double decay)
    : optimizer_(optimizer), decay_(decay) {
  const at::NoGradGuard no_grad;
  for (const TrainedParameter& p : optimizer.parameters())
    averages_.push_back({p.name, averaged_source(p).detach().to(at::kFloat, false, true)});
}

void WeightAverages::update() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> into, from;
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    into.push_back(averages_[i].tensor);
    from.push_back(averaged_source(optimizer_.parameters()[i]).detach().to(at::kFloat));
  }
  at::_foreach_lerp_(into, from, 1.0 - decay_);
}

void WeightAverages::copy_into_weights() const {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    const TrainedParameter& p = optimizer_.parameters()[i];
    at::Tensor parameter = p.parameter, master = p.master;
    parameter.copy_(averages_[i].tensor);
    if (!master.is_same(parameter) && master.sizes() == parameter.sizes())
      master.copy_(averages_[i].tensor);
  }
}

WeightAverages::InPlace::InPlace(const WeightAverages& averages) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < averages.averages_.size(); ++i) {
    at::Tensor parameter = averages.optimizer_.parameters()[i].parameter;
    saved_.emplace_back(parameter, parameter.detach().clone());
    parameter.copy_(averages.averages_[i].tensor);
  }
}

WeightAverages::InPlace::~InPlace() {
  const at::NoGradGuard no_grad;
  for (auto& [parameter, values] : saved_) parameter.copy_(values);
}

}  // namespace llava
