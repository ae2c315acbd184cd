#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "config/stage_config.h"
#include "model/llava_model.h"

namespace llava {

/// One trained tensor with its state. For parameters below float32 `master` is the float32 value that is
/// updated and rounded into the parameter; else it is the parameter itself.
struct TrainedParameter {
  std::string name;
  at::Tensor parameter, master;
  at::Tensor exp_avg, exp_avg_sq, step;  ///< step: float32 scalar
  at::Tensor grad;  ///< float32 sum over the step's micro-batches; undefined: none came
  double peak_lr = 0;
};

/// AdamW as torch.optim.AdamW (decay on all trained tensors), with gradients summed in float32.
class AdamW {
 public:
  /// Sets requires_grad of `trained`. Error{kInput} if a name is found by no learning-rate pattern.
  AdamW(const std::vector<NamedParameter>& trained, const PatternNumbers& lr, const OptimConfig& config);
  /// Moves the parameters' gradients into the sums; after every backward.
  void collect_gradients();
  /// Global 2-norm of the summed gradients, before clipping.
  double gradient_norm() const;
  /// Clips by `norm` (as gradient_norm gave it), updates with rates peak * multiplier and clears the sums.
  void step(double multiplier, double norm);
  void clear_gradients();
  std::vector<TrainedParameter>& parameters() { return parameters_; }
  const std::vector<TrainedParameter>& parameters() const { return parameters_; }
  std::int64_t num_parameters() const;

 private:
  OptimConfig config_;
  std::vector<TrainedParameter> parameters_;
};

/// The rate of the first pattern found in `name`; negative: none.
double rate_of(const std::string& name, const PatternNumbers& lr);

}  // namespace llava
