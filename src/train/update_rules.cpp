#include <torch/torch.h>

#include <cmath>

#include "base/error.h"
#include "tensor/dynamic_map.h"
#include "train/optimizer.h"

/// All rules take float32 masters and gradients. Sources: each rule's paper and the peer it is tested against
/// (tools/reference/make_optimizer_golden.py).
namespace llava {
namespace {

/// float32, also where the weight itself is below that.
at::TensorOptions state_options(const at::Tensor& of) {
  return of.options().dtype(at::kFloat).requires_grad(false);
}
at::Tensor zeros_of(const at::Tensor& t) { return at::zeros(t.sizes(), state_options(t)); }
at::Tensor new_step(const at::Tensor& like) { return at::zeros({}, state_options(like)); }

/// AdamW as torch.optim.AdamW: decoupled decay before the step.
class AdamWRule final : public UpdateRule {
 public:
  explicit AdamWRule(const OptimConfig& config) : config_(config) {}
  void make_state(TrainedParameter& p) const override {
    p.state = {{"exp_avg", zeros_of(p.master)},
               {"exp_avg_sq", zeros_of(p.master)},
               {"step", new_step(p.master)}};
  }
  void update(const std::vector<TrainedParameter*>& group, double lr, double weight_decay) const override {
    std::vector<at::Tensor> masters, grads, exp_avgs, exp_avg_sqs, steps;
    for (TrainedParameter* p : group) {
      masters.push_back(p->master), grads.push_back(p->grad), steps.push_back(p->state.at("step"));
      exp_avgs.push_back(p->state.at("exp_avg")), exp_avg_sqs.push_back(p->state.at("exp_avg_sq"));
    }
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(masters, grads, exp_avgs, exp_avg_sqs, {}, steps, lr, config_.betas[0],
                      config_.betas[1], weight_decay, config_.eps, false, false);
  }
  bool elementwise() const override { return true; }

 private:
  OptimConfig config_;
};

/// AdamW with both moments in 8 bits by blocks of 256, as bitsandbytes' for CPUs (its CUDA kernel decays after
/// the step): small tensors and embeddings keep float32 moments.
class AdamW8bitRule final : public UpdateRule {
 public:
  explicit AdamW8bitRule(const OptimConfig& config) : config_(config), plain_(config) {}
  void make_state(TrainedParameter& p) const override {
    const bool embedding = p.name.find("embed_tokens") != std::string::npos;
    if (p.parameter.numel() < kSmallest || embedding) return plain_.make_state(p);
    const at::Tensor zeros = zeros_of(p.master).flatten();
    const Blockwise8 m = quantise_blockwise8(zeros, true), v = quantise_blockwise8(zeros, false);
    p.state = {{"exp_avg", m.codes},         {"exp_avg_absmax", m.absmax},
               {"exp_avg_sq", v.codes},      {"exp_avg_sq_absmax", v.absmax},
               {"step", new_step(p.master)}};
  }
  void update(const std::vector<TrainedParameter*>& group, double lr, double weight_decay) const override {
    for (TrainedParameter* p : group) {
      if (p->state.contains("exp_avg_absmax")) {
        update_one(*p, lr, weight_decay);
      } else {
        plain_.update({p}, lr, weight_decay);
      }
    }
  }
  bool elementwise() const override { return true; }

 private:
  static constexpr std::int64_t kSmallest = 4096;
  /// Elements whose float32 moments exist at once (a multiple of the block).
  static constexpr std::int64_t kStretch = std::int64_t{1} << 22;
  static constexpr std::int64_t kBlock = 256;

  void update_one(TrainedParameter& p, double lr, double weight_decay) const {
    const double steps = p.state.at("step").add_(1).item<double>();
    const double correction1 = 1 - std::pow(config_.betas[0], steps),
                 correction2 = std::sqrt(1 - std::pow(config_.betas[1], steps));
    at::Tensor master = p.master.view(-1), grad = p.grad.reshape(-1);
    for (std::int64_t begin = 0; begin < master.numel(); begin += kStretch) {
      const std::int64_t len = std::min(kStretch, master.numel() - begin);
      at::Tensor m = load(p, "exp_avg", true, begin, len), v = load(p, "exp_avg_sq", false, begin, len);
      const at::Tensor g = grad.narrow(0, begin, len);
      at::Tensor w = master.narrow(0, begin, len);
      m.mul_(config_.betas[0]).add_(g, 1 - config_.betas[0]);
      v.mul_(config_.betas[1]).addcmul_(g, g, 1 - config_.betas[1]);
      if (weight_decay > 0) w.mul_(1 - lr * weight_decay);
      w.addcdiv_(m, v.sqrt().div_(correction2).add_(config_.eps), -lr / correction1);
      store(p, "exp_avg", true, begin, m), store(p, "exp_avg_sq", false, begin, v);
    }
  }
  static Blockwise8 part(const TrainedParameter& p, const std::string& key, std::int64_t begin,
                         std::int64_t len) {
    return {p.state.at(key).narrow(0, begin, len),
            p.state.at(key + "_absmax").narrow(0, begin / kBlock, (len + kBlock - 1) / kBlock)};
  }
  static at::Tensor load(const TrainedParameter& p, const std::string& key, bool with_sign,
                         std::int64_t begin, std::int64_t len) {
    return dequantise_blockwise8(part(p, key, begin, len), with_sign, kBlock);
  }
  static void store(TrainedParameter& p, const std::string& key, bool with_sign, std::int64_t begin,
                    const at::Tensor& values) {
    const Blockwise8 fresh = quantise_blockwise8(values, with_sign, kBlock);
    const Blockwise8 kept = part(p, key, begin, values.numel());
    kept.codes.copy_(fresh.codes), kept.absmax.copy_(fresh.absmax);
  }
  OptimConfig config_;
  AdamWRule plain_;
};

/// Adafactor with a given rate, as transformers' with scale_parameter and relative_step off: the second
/// moment of a matrix is kept as its rows' and columns' means.
class AdafactorRule final : public UpdateRule {
 public:
  explicit AdafactorRule(const OptimConfig& config) : config_(config) {}
  void make_state(TrainedParameter& p) const override {
    p.state = {{"step", new_step(p.master)}};
    if (p.master.dim() >= 2) {
      p.state.emplace("exp_avg_sq_row", zeros_of(p.master.select(-1, 0)));
      p.state.emplace("exp_avg_sq_col", zeros_of(p.master.select(-2, 0)));
    } else {
      p.state.emplace("exp_avg_sq", zeros_of(p.master));
    }
  }
  void update(const std::vector<TrainedParameter*>& group, double lr, double weight_decay) const override {
    for (TrainedParameter* p : group) {
      const double keep = 1 - std::pow(p->state.at("step").add_(1).item<double>(), config_.decay_rate);
      at::Tensor step = scaled_gradient(*p, keep);
      const double rms = step.square().mean().sqrt().item<double>();
      step.mul_(lr / std::max(1.0, rms / config_.clip_threshold));
      if (weight_decay > 0) p->master.mul_(1 - lr * weight_decay);
      p->master.sub_(step);
    }
  }
  bool elementwise() const override { return false; }

 private:
  static constexpr double kTiny = 1e-30;
  static at::Tensor scaled_gradient(TrainedParameter& p, double keep) {
    const at::Tensor squares = p.grad.square().add_(kTiny);
    if (p.master.dim() < 2) {
      at::Tensor& v = p.state.at("exp_avg_sq");
      v.mul_(keep).add_(squares, 1 - keep);
      return p.grad * v.rsqrt();
    }
    at::Tensor &row = p.state.at("exp_avg_sq_row"), &col = p.state.at("exp_avg_sq_col");
    row.mul_(keep).add_(squares.mean(-1), 1 - keep);
    col.mul_(keep).add_(squares.mean(-2), 1 - keep);
    const at::Tensor rows = (row / row.mean(-1, true)).rsqrt_().unsqueeze(-1);
    return (p.grad * rows).mul_(col.unsqueeze(-2).rsqrt());
  }
  OptimConfig config_;
};

/// Lion (Chen et al. 2023): the sign of a momentum mixed with the gradient.
class LionRule final : public UpdateRule {
 public:
  explicit LionRule(const OptimConfig& config) : config_(config) {}
  void make_state(TrainedParameter& p) const override { p.state = {{"exp_avg", zeros_of(p.master)}}; }
  void update(const std::vector<TrainedParameter*>& group, double lr, double weight_decay) const override {
    for (TrainedParameter* p : group) {
      at::Tensor& m = p->state.at("exp_avg");
      if (weight_decay > 0) p->master.mul_(1 - lr * weight_decay);
      p->master.sub_(at::lerp(p->grad, m, config_.betas[0]).sign_(), lr);
      m.lerp_(p->grad, 1 - config_.betas[1]);
    }
  }
  bool elementwise() const override { return true; }

 private:
  OptimConfig config_;
};

/// Muon as torch.optim.Muon: a matrix moves by its momentum made orthogonal (Newton-Schulz in bfloat16).
/// Vectors, embeddings and the head move by AdamW with the same rate.
class MuonRule final : public UpdateRule {
 public:
  explicit MuonRule(const OptimConfig& config) : config_(config), plain_(config) {}
  void make_state(TrainedParameter& p) const override {
    const bool table = p.name.find("embed_tokens") != std::string::npos ||
                       p.name.find("lm_head") != std::string::npos || p.master.dim() != 2;
    if (table) return plain_.make_state(p);
    p.state = {{"momentum_buffer", zeros_of(p.master)}};
  }
  void update(const std::vector<TrainedParameter*>& group, double lr, double weight_decay) const override {
    for (TrainedParameter* p : group) {
      const auto buffer = p->state.find("momentum_buffer");
      if (buffer == p->state.end()) {
        plain_.update({p}, lr, weight_decay);
        continue;
      }
      at::Tensor& m = buffer->second;
      m.lerp_(p->grad, 1 - config_.momentum);
      const at::Tensor direction = config_.nesterov ? at::lerp(p->grad, m, config_.momentum) : m;
      const at::Tensor step = orthogonal(direction);
      if (weight_decay > 0) p->master.mul_(1 - lr * weight_decay);
      p->master.sub_(step, lr * scale(p->master));
    }
  }
  bool elementwise() const override { return false; }

 private:
  double scale(const at::Tensor& matrix) const {
    const auto a = static_cast<double>(matrix.size(0)), b = static_cast<double>(matrix.size(1));
    return config_.adjust_lr == MuonScale::kOriginal ? std::sqrt(std::max(1.0, a / b))
                                                     : 0.2 * std::sqrt(std::max(a, b));
  }
  at::Tensor orthogonal(const at::Tensor& matrix) const {
    const bool tall = matrix.size(0) > matrix.size(1);
    at::Tensor x = matrix.to(at::kBFloat16);
    if (tall) x = x.t();
    x = x / x.norm().clamp_min(1e-7);
    for (std::int64_t i = 0; i < config_.ns_steps; ++i) {
      const at::Tensor gram = at::mm(x, x.t());
      const at::Tensor polynomial = at::addmm(gram, gram, gram, -4.7750, 2.0315);
      x = at::addmm(x, polynomial, x, 3.4445);
    }
    return tall ? x.t() : x;
  }
  OptimConfig config_;
  AdamWRule plain_;
};

/// torch.optim.SGD with momentum; decay is added to the gradient.
class SgdRule final : public UpdateRule {
 public:
  explicit SgdRule(const OptimConfig& config) : config_(config) {}
  void make_state(TrainedParameter& p) const override {
    p.state = {{"step", new_step(p.master)}};
    if (config_.momentum > 0) p.state.emplace("momentum_buffer", zeros_of(p.master));
  }
  void update(const std::vector<TrainedParameter*>& group, double lr, double weight_decay) const override {
    for (TrainedParameter* p : group) {
      const bool first = p->state.at("step").add_(1).item<double>() == 1;
      at::Tensor step = weight_decay > 0 ? p->grad.add(p->master, weight_decay) : p->grad;
      if (config_.momentum > 0) {
        at::Tensor& m = p->state.at("momentum_buffer");
        m.mul_(first ? 0.0 : config_.momentum).add_(step);
        step = config_.nesterov ? step.add(m, config_.momentum) : m;
      }
      p->master.sub_(step, lr);
    }
  }
  bool elementwise() const override { return true; }

 private:
  OptimConfig config_;
};

}  // namespace

std::unique_ptr<UpdateRule> make_update_rule(const OptimConfig& config) {
  switch (config.name) {
    case OptimizerKind::kAdamW:
      return std::make_unique<AdamWRule>(config);
    case OptimizerKind::kAdamW8bit:
      return std::make_unique<AdamW8bitRule>(config);
    case OptimizerKind::kAdafactor:
      return std::make_unique<AdafactorRule>(config);
    case OptimizerKind::kLion:
      return std::make_unique<LionRule>(config);
    case OptimizerKind::kMuon:
      return std::make_unique<MuonRule>(config);
    case OptimizerKind::kSgd:
      return std::make_unique<SgdRule>(config);
  }
  fail(ErrorKind::kInternal, "unknown optimizer");
}

}  // namespace llava
