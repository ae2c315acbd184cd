#include "train/activation_checkpoint.h"

#include <torch/torch.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <set>

#include "train/random_state.h"

namespace llava {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Remembered : torch::CustomClassHolder {
  Remembered(Block b, const at::Device& device) : block(std::move(b)), random(device) {}
  Block block;
  RandomState random;
};

at::Tensor in_host_memory(const at::Tensor& x) {
  if (x.is_cpu()) return x;
  const at::Tensor host = at::empty(x.sizes(), x.options().device(at::kCPU).pinned_memory(true).requires_grad(false));
  return host.copy_(x.detach(), /*non_blocking=*/true);
}

class Checkpoint : public torch::autograd::Function<Checkpoint> {
 public:
  /// `anchor` is a scalar that wants a gradient: without it a frozen input would cut the block's parameters off.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& /*anchor*/,
                            const Block& block, bool offload) {
    context->save_for_backward({offload ? in_host_memory(x) : x});
    context->saved_data["device"] = x.device();
    context->saved_data["block"] =
        c10::IValue::make_capsule(c10::make_intrusive<Remembered>(block, x.device()));
    context->saved_data["input"] = x.requires_grad();
    // With grad mode, as the plain pass: dropout and the choice of kernels depend on it. The graph that is
    // built goes with the result's history here, and with it all that it keeps.
    const at::AutoGradMode with_grad(true);
    return block(x.detach().requires_grad_(x.requires_grad())).detach();
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto kept = c10::static_intrusive_pointer_cast<Remembered>(context->saved_data["block"].toCapsule());
    const at::Tensor x = context->get_saved_variables()[0]
                             .detach()
                             .to(context->saved_data["device"].toDevice(), /*non_blocking=*/true)
                             .requires_grad_(context->saved_data["input"].toBool());
    const RandomState outside(x.device());
    kept->random.restore();
    at::Tensor y;
    {
      const at::AutoGradMode with_grad(true);
      y = kept->block(x);
    }
    outside.restore();
    if (y.requires_grad()) y.backward(grads[0]);
    return {x.grad(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

/// The number of the block that owns a parameter: the first part of its name that is one. -1: none.
int block_number(const std::string& name) {
  for (std::size_t begin = 0; begin < name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const bool number = end > begin && std::all_of(name.begin() + static_cast<std::ptrdiff_t>(begin),
                                                   name.begin() + static_cast<std::ptrdiff_t>(end),
                                                   [](unsigned char c) { return std::isdigit(c) != 0; });
    if (number) return std::stoi(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return -1;
}

LlavaModel::LayerRunner make_runner(std::int64_t every, bool offload, const std::string& prefix,
                                    const std::vector<NamedParameter>& trained) {
  if (every == 0) return {};
  std::set<int> training;
  for (const NamedParameter& p : trained)
    if (p.name.starts_with(prefix)) training.insert(block_number(p.name));
  return [every, offload, training](int layer, const Block& block, const at::Tensor& x) {
    const bool keeps = x.requires_grad() || training.contains(layer);
    return keeps && layer % every == 0 ? checkpointed(block, x, offload) : block(x);
  };
}

}  // namespace

at::Tensor checkpointed(const Block& block, const at::Tensor& x, bool offload) {
  if (!at::GradMode::is_enabled()) return block(x);
  const at::Tensor anchor = at::zeros({}, x.options().dtype(at::kFloat)).requires_grad_(true);
  return Checkpoint::apply(x, anchor, block, offload);
}

void set_checkpointing(LlavaModel& model, const GradientCheckpointing& policy,
                       const std::vector<NamedParameter>& trained) {
  model.set_layer_runner(make_runner(policy.llm, policy.offload, "language_model.", trained));
  model.set_tower_runner(make_runner(policy.vision_tower ? 1 : 0, policy.offload, "vision_tower.", trained));
}

}  // namespace llava
