#include "model/lora.h"

#include <torch/torch.h>

#include <cmath>
#include <regex>
#include <set>

#include "base/error.h"

namespace llava {
namespace {

/// Which modules a LoraConfig names.
class ModuleFilter {
 public:
  explicit ModuleFilter(const LoraConfig& lora) : names_(lora.modules.begin(), lora.modules.end()) {
    if (!names_.empty()) return;
    try {
      pattern_ = std::regex(lora.target, std::regex::ECMAScript | std::regex::optimize);
    } catch (const std::regex_error& e) {
      fail(ErrorKind::kUsage, "LoRA target \"{}\" is not a regular expression: {}", lora.target, e.what());
    }
  }
  bool operator()(const std::string& module) const {
    return names_.empty() ? std::regex_search(module, pattern_) : names_.contains(module);
  }

 private:
  std::set<std::string> names_;
  std::regex pattern_;
};

}  // namespace

std::vector<std::string> add_lora(const std::vector<Linear*>& linears, const LoraConfig& lora) {
  if (lora.r <= 0) fail(ErrorKind::kUsage, "LoRA rank must be positive, not {}", lora.r);
  const ModuleFilter wanted(lora);
  const auto rank = static_cast<double>(lora.r);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(lora.seed);
  std::vector<std::string> names;
  for (Linear* linear : linears) {
    if (!wanted(linear->name)) continue;
    const double bound =
        1.0 / std::sqrt(static_cast<double>(linear->weight.size(1)));  // kaiming_uniform, a = sqrt 5
    const at::Tensor a =
        at::empty({lora.r, linear->weight.size(1)}, at::kFloat).uniform_(-bound, bound, generator);
    linear->lora_a = a.to(linear->weight.options());
    linear->lora_b = at::zeros({linear->weight.size(0), lora.r}, linear->weight.options());
    linear->lora_scale = lora.lora_alpha / (lora.use_rslora ? std::sqrt(rank) : rank);
    linear->lora_dropout = lora.dropout;
    linear->lora_enabled = true;
    names.push_back(linear->name);
  }
  if (names.empty()) fail(ErrorKind::kUsage, "LoRA target \"{}\" matches no linear layer", lora.target);
  return names;
}

void merge_lora(const std::vector<Linear*>& linears) {
  const at::NoGradGuard no_grad;
  for (Linear* linear : linears) {
    if (!linear->has_lora()) continue;
    const at::Tensor delta = at::mm(linear->lora_b.to(at::kFloat), linear->lora_a.to(at::kFloat));
    const at::Tensor merged =
        linear->weight.to(at::kFloat).add(delta, linear->lora_scale).to(linear->weight.scalar_type());
    linear->weight.set_data(merged);  // the stored weight may be a read-only map
    linear->int8.reset();
    linear->lora_a = linear->lora_b = at::Tensor();
  }
}

void set_lora_enabled(const std::vector<Linear*>& linears, bool enabled) {
  for (Linear* linear : linears) linear->lora_enabled = enabled;
}

at::Tensor add_lora_output(const Linear& linear, const at::Tensor& x, const at::Tensor& y) {
  at::Tensor input = x;
  if (linear.lora_dropout > 0 && at::GradMode::is_enabled() && linear.lora_a.requires_grad())
    input = at::dropout(x, linear.lora_dropout, true);
  const at::Tensor low = at::linear(input.flatten(0, -2), linear.lora_a.to(x.scalar_type()));
  return at::addmm(y.flatten(0, -2), low, linear.lora_b.to(x.scalar_type()).t(), 1, linear.lora_scale).view(y.sizes());
}

}  // namespace llava
