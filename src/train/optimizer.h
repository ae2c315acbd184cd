#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/stage_config.h"
#include "model/llava_model.h"

namespace llava {

/// One trained tensor with its state.
struct TrainedParameter {
  std::string name;
  at::Tensor parameter;
  /// What is updated: a float32 copy of `parameter` on the device where states live, or `parameter` itself.
  at::Tensor master;
  at::Tensor grad;  ///< float32 sum over the step's micro-batches, shaped as `master`; undefined: none came
  std::map<std::string, at::Tensor> state;  ///< by the update rule's names: "exp_avg", "step"…
  double peak_lr = 0, weight_decay = 0;
  bool copied() const { return !master.is_same(parameter); }
};

/// How a gradient moves a weight. Rules know neither precision nor clipping.
class UpdateRule {
 public:
  virtual ~UpdateRule() = default;
  /// Makes `p.state` for `p.master`.
  virtual void make_state(TrainedParameter& p) const = 0;
  /// One step of parameters that share a rate and a decay; all have `grad`.
  virtual void update(const std::vector<TrainedParameter*>& group, double lr, double weight_decay) const = 0;
  /// Whether every element moves by its own numbers alone, so that any slice of a flattened tensor (cut at
  /// multiples of 256) can be updated without the rest.
  virtual bool elementwise() const = 0;
};
std::unique_ptr<UpdateRule> make_update_rule(const OptimConfig& config);

/// The trained tensors of a stage, their gradients summed in float32, and the rule that moves them.
///
/// Precision: float32 weights are moved in place. Below that a float32 master is moved and rounded into the
/// weight, or, with master_weights false, the weight's float32 value is moved and rounded back at random (up
/// with the probability of the part that is lost, so that small steps add up).
class Optimizer {
 public:
  /// Sets requires_grad of `trained`. Error{kInput} if a name is found by no learning-rate pattern.
  Optimizer(const std::vector<NamedParameter>& trained, const PatternNumbers& lr, const OptimConfig& config);
  /// Adds d loss / d parameter to the sums; nothing where `loss` depends on no parameter.
  void backward(const at::Tensor& loss);
  /// What `backward` multiplies the loss with, and divides the gradients by.
  void set_loss_scale(double scale) { loss_scale_ = scale; }
  /// Moves the parameters' gradients, times `factor`, into the sums.
  void collect_gradients(double factor = 1.0);
  /// Global 2-norm of the summed gradients, before clipping.
  double gradient_norm() const;
  /// What gradients are multiplied with when their norm is `norm`.
  double clip_coefficient(double norm) const;
  /// Clips by `norm` (as gradient_norm gave it), updates with rates peak * multiplier and clears the sums.
  void step(double multiplier, double norm);
  void clear_gradients();
  std::vector<TrainedParameter>& parameters() { return parameters_; }
  const std::vector<TrainedParameter>& parameters() const { return parameters_; }
  const UpdateRule& rule() const { return *rule_; }
  std::int64_t num_parameters() const;
  /// Everything a checkpoint keeps, under "master/<name>" and "<state>/<name>"; the tensors themselves.
  std::vector<NamedParameter> state_tensors() const;
  std::int64_t state_bytes() const;

 private:
  void move(const std::vector<TrainedParameter*>& group, double lr, double weight_decay);
  OptimConfig config_;
  double loss_scale_ = 1.0;
  std::unique_ptr<UpdateRule> rule_;
  std::vector<TrainedParameter> parameters_;
};

/// The number of the first pattern found in `name`; negative: none.
double number_of(const std::string& name, const PatternNumbers& numbers);

/// Rounds float32 `value` into bfloat16 `into`, up or down at random with the probability that keeps the
/// mean. Uses the default generator.
void round_at_random(const at::Tensor& value, at::Tensor& into);

}  // namespace llava
