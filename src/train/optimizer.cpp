#include "train/optimizer.h"

#include <torch/torch.h>

#include <algorithm>
#include <regex>
#include <utility>

#include "base/error.h"

namespace llava {

double number_of(const std::string& name, const PatternNumbers& numbers) {
  for (const auto& [pattern, number] : numbers)
    if (std::regex_search(name, std::regex(pattern))) return number;
  return -1;
}

void round_at_random(const at::Tensor& value, at::Tensor& into) {
  LLAVA_ASSERT(value.scalar_type() == at::kFloat && into.scalar_type() == at::kBFloat16,
               "float32 is rounded to bfloat16");
  // bfloat16 keeps the upper 16 bits: adding a random number below 2^16 carries into them as often as the
  // lower ones say.
  const at::Tensor bits = value.contiguous().view(at::kInt);
  const at::Tensor noise = at::randint(0, 1 << 16, bits.sizes(), bits.options());
  const at::Tensor kept = noise.add_(bits).bitwise_and_(static_cast<std::int64_t>(-65536));
  into.copy_(kept.view(at::kFloat));
}

namespace {

bool wants_master(const at::Tensor& tensor, const OptimConfig& config) {
  const bool elsewhere = config.offload == OffloadDevice::kCpu && !tensor.device().is_cpu();
  return elsewhere || (tensor.scalar_type() != at::kFloat && config.master_weights);
}

}  // namespace

Optimizer::Optimizer(const std::vector<NamedParameter>& trained, const PatternNumbers& lr,
                     const OptimConfig& config)
    : config_(config), rule_(make_update_rule(config)) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : trained) {
    TrainedParameter p;
    p.name = name;
    p.parameter = tensor;
    p.parameter.requires_grad_(true);
    p.peak_lr = number_of(name, lr);
    if (p.peak_lr < 0) fail(ErrorKind::kInput, "lr: no pattern is found in \"{}\", which trains", name);
    p.weight_decay = std::max(0.0, number_of(name, config.weight_decay));
    const c10::Device device = config.offload == OffloadDevice::kCpu ? c10::Device(c10::kCPU) : tensor.device();
    p.master = wants_master(tensor, config)
                   ? tensor.detach().to(at::TensorOptions().dtype(at::kFloat).device(device), false, true)
                   : tensor;
    rule_->make_state(p);
    parameters_.push_back(std::move(p));
  }
}

void Optimizer::backward(const at::Tensor& loss) {
  if (loss.requires_grad()) (loss_scale_ == 1.0 ? loss : loss * loss_scale_).backward();
  collect_gradients(1.0 / loss_scale_);
}

void Optimizer::collect_gradients(double factor) {
  const at::NoGradGuard no_grad;
  for (TrainedParameter& p : parameters_) {
    at::Tensor& fresh = p.parameter.mutable_grad();
    if (!fresh.defined()) continue;
    const at::Tensor wide = fresh.to(at::TensorOptions().dtype(at::kFloat).device(p.master.device()));
    if (p.grad.defined()) {
      p.grad.add_(wide, factor);
    } else {
      p.grad = factor == 1.0 ? wide : wide * factor;
    }
    fresh.reset();
  }
}

double Optimizer::gradient_norm() const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> grads;
  for (const TrainedParameter& p : parameters_)
    if (p.grad.defined()) grads.push_back(p.grad);
  if (grads.empty()) return 0;
  return at::linalg_vector_norm(at::stack(at::_foreach_norm(grads))).item<double>();
}

double Optimizer::clip_coefficient(double norm) const {
  return config_.max_grad_norm > 0 ? std::min(1.0, config_.max_grad_norm / (norm + 1e-6)) : 1.0;
}

void Optimizer::step(double multiplier, double norm) {
  const at::NoGradGuard no_grad;
  std::map<std::pair<double, double>, std::vector<TrainedParameter*>> groups;
  std::vector<at::Tensor> grads;
  for (TrainedParameter& p : parameters_) {
    if (!p.grad.defined()) continue;  // torch: no gradient, no update, no decay
    groups[{p.peak_lr, p.weight_decay}].push_back(&p);
    grads.push_back(p.grad);
  }
  const double coefficient = clip_coefficient(norm);
  if (coefficient < 1.0 && !grads.empty()) at::_foreach_mul_(grads, coefficient);
  for (auto& [numbers, group] : groups) move(group, numbers.first * multiplier, numbers.second);
  clear_gradients();
}

void Optimizer::move(const std::vector<TrainedParameter*>& group, double lr, double weight_decay) {
  std::vector<TrainedParameter*> whole;  // float32 values that stay
  for (TrainedParameter* p : group) {
    if (p->copied() || p->parameter.scalar_type() == at::kFloat) {
      whole.push_back(p);
      continue;
    }
    p->master = p->parameter.to(at::kFloat);  // for this tensor and this moment only
    rule_->update({p}, lr, weight_decay);
    const at::Tensor moved = std::exchange(p->master, p->parameter);
    round_at_random(moved, p->parameter);
  }
  if (whole.empty()) return;
  rule_->update(whole, lr, weight_decay);
  std::vector<at::Tensor> parameters, masters;
  for (TrainedParameter* p : whole)
    if (p->copied()) parameters.push_back(p->parameter), masters.push_back(p->master);
  if (!parameters.empty()) at::_foreach_copy_(parameters, masters);
}

void Optimizer::clear_gradients() {
  for (TrainedParameter& p : parameters_) p.grad.reset();
}

std::int64_t Optimizer::num_parameters() const {
  std::int64_t count = 0;
  for (const TrainedParameter& p : parameters_) count += p.parameter.numel();
  return count;
}

std::vector<NamedParameter> Optimizer::state_tensors() const {
  std::vector<NamedParameter> all;
  for (const TrainedParameter& p : parameters_) {
    if (p.copied()) all.push_back({"master/" + p.name, p.master});
    for (const auto& [key, tensor] : p.state) all.push_back({key + "/" + p.name, tensor});
  }
  return all;
}

std::int64_t Optimizer::state_bytes() const {
  std::int64_t bytes = 0;
  for (const NamedParameter& t : state_tensors()) bytes += static_cast<std::int64_t>(t.tensor.nbytes());
  return bytes;
}

}  // namespace llava
