#include "train/optimizer.h"

#include <torch/torch.h>

#include <map>
#include <regex>

#include "base/error.h"

namespace llava {

double rate_of(const std::string& name, const PatternNumbers& lr) {
  for (const auto& [pattern, rate] : lr)
    if (std::regex_search(name, std::regex(pattern))) return rate;
  return -1;
}

AdamW::AdamW(const std::vector<NamedParameter>& trained, const PatternNumbers& lr,
             const OptimConfig& config)
    : config_(config) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : trained) {
    TrainedParameter p;
    p.name = name;
    p.parameter = tensor;
    p.parameter.requires_grad_(true);
    p.peak_lr = rate_of(name, lr);
    if (p.peak_lr < 0) fail(ErrorKind::kInput, "lr: no pattern is found in \"{}\", which trains", name);
    p.master = tensor.scalar_type() == at::kFloat ? tensor : tensor.detach().to(at::kFloat);
    p.exp_avg = at::zeros_like(p.master);
    p.exp_avg_sq = at::zeros_like(p.master);
    p.step = at::zeros({}, p.master.options().requires_grad(false));
    parameters_.push_back(std::move(p));
  }
}

void AdamW::collect_gradients() {
  const at::NoGradGuard no_grad;
  for (TrainedParameter& p : parameters_) {
    at::Tensor& fresh = p.parameter.mutable_grad();
    if (!fresh.defined()) continue;
    if (p.grad.defined()) {
      p.grad.add_(fresh);
    } else {
      p.grad = fresh.to(at::kFloat);
    }
    fresh.reset();
  }
}

double AdamW::gradient_norm() const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> grads;
  for (const TrainedParameter& p : parameters_)
    if (p.grad.defined()) grads.push_back(p.grad);
  if (grads.empty()) return 0;
  return at::linalg_vector_norm(at::stack(at::_foreach_norm(grads))).item<double>();
}

void AdamW::step(double multiplier, double norm) {
  const at::NoGradGuard no_grad;
  struct Group {
    std::vector<at::Tensor> masters, grads, exp_avgs, exp_avg_sqs, steps, parameters;
  };
  std::map<double, Group> groups;
  for (TrainedParameter& p : parameters_) {
    if (!p.grad.defined()) continue;  // torch: no gradient, no update, no decay
    Group& g = groups[p.peak_lr];
    g.masters.push_back(p.master);
    g.grads.push_back(p.grad);
    g.exp_avgs.push_back(p.exp_avg);
    g.exp_avg_sqs.push_back(p.exp_avg_sq);
    g.steps.push_back(p.step);
    if (!p.master.is_same(p.parameter)) g.parameters.push_back(p.parameter);
  }
  const double coefficient =
      config_.max_grad_norm > 0 ? std::min(1.0, config_.max_grad_norm / (norm + 1e-6)) : 1.0;
  for (auto& [peak_lr, g] : groups) {
    if (coefficient < 1.0) at::_foreach_mul_(g.grads, coefficient);
    at::_foreach_add_(g.steps, 1);
    at::_fused_adamw_(g.masters, g.grads, g.exp_avgs, g.exp_avg_sqs, {}, g.steps, peak_lr * multiplier,
                      config_.betas[0], config_.betas[1], config_.weight_decay, config_.eps, false, false);
    // All parameters of a model share one dtype, so either every master is a copy or none is.
    if (!g.parameters.empty()) at::_foreach_copy_(g.parameters, g.masters);
  }
  clear_gradients();
}

void AdamW::clear_gradients() {
  for (TrainedParameter& p : parameters_) p.grad.reset();
}

std::int64_t AdamW::num_parameters() const {
  std::int64_t count = 0;
  for (const TrainedParameter& p : parameters_) count += p.parameter.numel();
  return count;
}

}  // namespace llava
