#include "model/lora.h"

#include <torch/torch.h>

#include <cmath>
#include <map>
#include <regex>
#include <set>

#include "base/error.h"

namespace llava {
namespace {

/// Rank and alpha of a layer, or nothing for layers that a LoraConfig does not name.
class ModulePlan {
 public:
  explicit ModulePlan(const LoraConfig& lora) : lora_(lora) {
    for (const LoraModule& module : lora.modules) named_[module.name] = module;
    if (!named_.empty()) return;
    try {
      target_ = std::regex(lora.target, std::regex::ECMAScript | std::regex::optimize);
    } catch (const std::regex_error& e) {
      fail(ErrorKind::kUsage, "LoRA target \"{}\" is not a regular expression: {}", lora.target, e.what());
    }
    for (const auto& [pattern, rank] : lora.rank_pattern) ranks_.emplace_back(ends_with(pattern), rank);
    for (const auto& [pattern, alpha] : lora.alpha_pattern) alphas_.emplace_back(ends_with(pattern), alpha);
  }

  std::optional<LoraModule> find(const std::string& module) {
    if (!named_.empty()) {
      const auto it = named_.find(module);
      return it == named_.end() ? std::nullopt : std::optional(it->second);
    }
    if (!std::regex_search(module, target_)) return std::nullopt;
    const double rank = first(ranks_, used_ranks_, module, static_cast<double>(lora_.r));
    return LoraModule{module, static_cast<std::int64_t>(rank), first(alphas_, used_alphas_, module, lora_.lora_alpha)};
  }

  /// Every pattern must have found a layer, or it was a slip of the pen.
  void check_all_used() const {
    for (std::size_t i = 0; i < ranks_.size(); ++i)
      if (!used_ranks_.contains(i))
        fail(ErrorKind::kUsage, "rank_pattern \"{}\" matches no adapted layer", lora_.rank_pattern[i].first);
    for (std::size_t i = 0; i < alphas_.size(); ++i)
      if (!used_alphas_.contains(i))
        fail(ErrorKind::kUsage, "alpha_pattern \"{}\" matches no adapted layer", lora_.alpha_pattern[i].first);
  }

 private:
  using Patterns = std::vector<std::pair<std::regex, double>>;
  static std::regex ends_with(const std::string& pattern) { return std::regex("(.*\\.)?(" + pattern + ")"); }
  static double first(const Patterns& patterns, std::set<std::size_t>& used, const std::string& module,
                      double otherwise) {
    for (std::size_t i = 0; i < patterns.size(); ++i)
      if (std::regex_match(module, patterns[i].first)) {
        used.insert(i);
        return patterns[i].second;
      }
    return otherwise;
  }

  const LoraConfig& lora_;
  std::map<std::string, LoraModule> named_;
  std::regex target_;
  Patterns ranks_, alphas_;
  std::set<std::size_t> used_ranks_, used_alphas_;
};

at::Tensor first_a(const LoraConfig& lora, std::int64_t rank, std::int64_t in, at::Generator& generator) {
  const at::Tensor a = at::empty({rank, in}, at::kFloat);
  if (lora.init == LoraInit::kGaussian) return a.normal_(0.0, 1.0 / static_cast<double>(rank), generator);
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));  // kaiming_uniform, a = sqrt 5
  return a.uniform_(-bound, bound, generator);
}

/// 2-norms of the rows of W + scale * B A, in the pair's dtype [out].
at::Tensor adapted_norms(const Linear& linear) {
  const at::NoGradGuard no_grad;
  const at::Tensor weight = linear.dense_weight(linear.lora_a.scalar_type());
  return at::linalg_vector_norm(at::addmm(weight, linear.lora_b, linear.lora_a, 1, linear.lora_scale), 2, 1);
}

void add_pair(Linear& linear, const LoraConfig& lora, const LoraModule& module, at::Generator& generator) {
  if (module.r <= 0) fail(ErrorKind::kUsage, "LoRA rank must be positive, not {}", module.r);
  const auto rank = static_cast<double>(module.r);
  const c10::ScalarType dtype = lora.float32_pairs ? at::kFloat : linear.dtype();
  const auto options = at::TensorOptions().dtype(dtype).device(linear.device());
  const bool has_numbers = !linear.device().is_meta();
  linear.lora_a = has_numbers ? first_a(lora, module.r, linear.in_features(), generator).to(options)
                              : at::empty({module.r, linear.in_features()}, options);
  linear.lora_b = at::zeros({linear.out_features(), module.r}, options);
  linear.lora_alpha = module.lora_alpha;
  linear.lora_scale = module.lora_alpha / (lora.use_rslora ? std::sqrt(rank) : rank);
  linear.lora_dropout = lora.dropout;
  linear.lora_enabled = true;
  linear.lora_magnitude = lora.use_dora ? adapted_norms(linear) : at::Tensor();
}

/// What DoRA adds to y = W x + b: (m/n - 1) W x + m/n * scale * B A x with n the norms of W + scale * B A, which
/// count as constants in the gradient. Under dropout W too sees the dropped input, as in PEFT.
at::Tensor dora_output(const Linear& linear, const at::Tensor& x, const at::Tensor& y, bool drops) {
  const c10::ScalarType dtype = linear.lora_a.scalar_type();
  const at::Tensor input = drops ? at::dropout(x.to(dtype), linear.lora_dropout, true) : x.to(dtype);
  at::Tensor plain = y.to(dtype);
  if (drops) {
    plain = linear.base(input.to(x.scalar_type())).to(dtype);
  }
  if (linear.bias.defined()) plain = plain - linear.bias.to(dtype);
  const at::Tensor ratio = linear.lora_magnitude / adapted_norms(linear);
  const at::Tensor low = at::linear(at::linear(input, linear.lora_a), linear.lora_b);
  return (y + (ratio - 1) * plain + ratio * low * linear.lora_scale).to(y.scalar_type());
}

}  // namespace

std::vector<std::string> add_lora(const std::vector<Linear*>& linears, const LoraConfig& lora) {
  if (lora.r <= 0) fail(ErrorKind::kUsage, "LoRA rank must be positive, not {}", lora.r);
  const at::NoGradGuard no_grad;
  ModulePlan plan(lora);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(lora.seed);
  std::vector<std::string> names;
  for (Linear* linear : linears) {
    const std::optional<LoraModule> module = plan.find(linear->name);
    if (!module) continue;
    add_pair(*linear, lora, *module, generator);
    names.push_back(linear->name);
  }
  if (names.empty()) fail(ErrorKind::kUsage, "LoRA target \"{}\" matches no linear layer", lora.target);
  plan.check_all_used();
  return names;
}

at::Tensor merged_weight(const Linear& linear, const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  const at::Tensor a = linear.lora_a.to(at::kFloat), b = linear.lora_b.to(at::kFloat);
  at::Tensor sum = weight.to(a.device(), at::kFloat).add(at::mm(b, a), linear.lora_scale);
  if (linear.lora_magnitude.defined()) {
    const at::Tensor norms = at::linalg_vector_norm(sum, 2, 1);
    sum = sum * (linear.lora_magnitude.to(at::kFloat) / norms).unsqueeze(1);
  }
  return sum.to(weight.scalar_type());
}

void merge_lora(const std::vector<Linear*>& linears) {
  const at::NoGradGuard no_grad;
  for (Linear* linear : linears) {
    if (!linear->has_lora()) continue;
    if (linear->nf4)
      throw Error(ErrorKind::kUnsupported,
                  fmt::format("{}: its pair cannot be merged into 4 bits", linear->name),
                  "merge it into the 16-bit model: llava convert --in BASE --adapter ADAPTER");
    linear->weight.set_data(merged_weight(*linear, linear->weight));  // it may be a read-only map
    linear->int8.reset();
  }
  remove_lora(linears);
}

void remove_lora(const std::vector<Linear*>& linears) {
  for (Linear* linear : linears) linear->lora_a = linear->lora_b = linear->lora_magnitude = at::Tensor();
}

void set_lora_enabled(const std::vector<Linear*>& linears, bool enabled) {
  for (Linear* linear : linears) linear->lora_enabled = enabled;
}

at::Tensor add_lora_output(const Linear& linear, const at::Tensor& x, const at::Tensor& y) {
  const bool drops = linear.lora_dropout > 0 && at::GradMode::is_enabled() && linear.lora_a.requires_grad();
  if (linear.lora_magnitude.defined()) return dora_output(linear, x, y, drops);
  const c10::ScalarType dtype = c10::promoteTypes(linear.lora_a.scalar_type(), x.scalar_type());
  at::Tensor input = x.to(dtype);
  if (drops) input = at::dropout(input, linear.lora_dropout, true);
  const at::Tensor low = at::linear(input.flatten(0, -2), linear.lora_a.to(dtype));
  const at::Tensor sum =
      at::addmm(y.flatten(0, -2).to(dtype), low, linear.lora_b.to(dtype).t(), 1, linear.lora_scale);
  return sum.to(y.scalar_type()).view(y.sizes());
}

}  // namespace llava
