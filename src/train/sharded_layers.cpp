#include "train/sharded_layers.h"

#include <torch/torch.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "train/activation_checkpoint.h"
#include "train/slices.h"

namespace llava {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::string_view kPrefix = "language_model.layers.";

/// The layer a weight belongs to: of the decoder's own blocks, and no LoRA pair.
std::optional<std::size_t> layer_of(const std::string& name) {
  if (name.rfind(kPrefix, 0) != 0 || name.find(".lora_") != std::string::npos) return std::nullopt;
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), number);
  if (error != std::errc() || *end != '.') return std::nullopt;
  return number;
}

}  // namespace

struct ShardedLayers::Layer : torch::CustomClassHolder {
  struct Member {
    ParameterSlot slot;
    at::Tensor parameter;  ///< what the model and everybody else knows it by; without memory while cut
    at::Tensor shard;      ///< this rank's part [room], zeros behind the end
    std::int64_t room = 0, offset = 0;
    bool trains = false, flag = false;
    TrainedParameter* own = nullptr;
  };
  std::size_t number = 0;
  Collectives* group = nullptr;
  std::vector<Member> members;
  at::Tensor shards;  ///< [room of all]: the members' parts, one after the other
  double factor = 1;

  /// The whole weights, in the members' order.
  std::vector<at::Tensor> gather() const {
    const at::NoGradGuard no_grad;
    const at::Tensor all = at::empty({group->size(), shards.numel()}, shards.options());
    group->all_gather(all.view(-1), shards, fmt::format("layer {}", number)).wait();
    std::vector<at::Tensor> whole;
    for (const Member& m : members)
      whole.push_back(join_slices(all.narrow(1, m.offset, m.room), m.parameter.sizes()));
    return whole;
  }

  /// Sums the gradients (whole, undefined: none) over ranks into the optimizer's slices.
  void scatter(const variable_list& grads) {
    const at::NoGradGuard no_grad;
    const at::TensorOptions options = at::TensorOptions().dtype(at::kFloat).device(group->device());
    std::int64_t room = 0;
    for (const Member& m : members) room += m.trains ? m.room : 0;
    const at::Tensor all = at::zeros({group->size(), room}, options), own = at::empty({room}, options);
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < members.size(); ++i) {
      Member& m = members[i];
      if (!m.trains) continue;
      if (grads[i].defined()) put_in_slices(grads[i].to(at::kFloat), all.narrow(1, offset, m.room));
      m.flag = m.flag || grads[i].defined();
      offset += m.room;
    }
    group->reduce_scatter(own, all.view(-1), fmt::format("gradients of layer {}", number)).wait();
    offset = 0;
    for (Member& m : members) {
      if (!m.trains) continue;
      if (m.own != nullptr) {
        const at::Tensor sum = own.narrow(0, offset, m.own->master.numel()).to(m.own->master.device());
        if (m.own->grad.defined()) {
          m.own->grad.add_(sum, factor);
        } else {
          m.own->grad = sum * factor;
        }
      }
      offset += m.room;
    }
  }
  bool trains() const {
    return std::any_of(members.begin(), members.end(), [](const Member& m) { return m.trains; });
  }
};

namespace {

using Layer = ShardedLayers::Layer;

/// The whole weights of a layer as differentiable results; the backward pass scatters their gradients.
class Gather : public torch::autograd::Function<Gather> {
 public:
  /// `anchor` wants a gradient if something in the layer trains.
  static variable_list forward(AutogradContext* context, const at::Tensor& /*anchor*/,
                               const c10::intrusive_ptr<Layer>& layer) {
    context->saved_data["layer"] = c10::IValue::make_capsule(layer);
    context->set_materialize_grads(false);
    const std::vector<at::Tensor> whole = layer->gather();
    variable_list frozen;
    for (std::size_t i = 0; i < whole.size(); ++i)
      if (!layer->members[i].trains) frozen.push_back(whole[i]);
    context->mark_non_differentiable(frozen);
    return whole;
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto layer = c10::static_intrusive_pointer_cast<Layer>(context->saved_data["layer"].toCapsule());
    layer->scatter(grads);
    return {at::Tensor(), at::Tensor()};
  }
};

/// Puts whole weights where the block looks for them, for as long as it runs.
class StandIn {
 public:
  StandIn(Layer& layer, const std::vector<at::Tensor>& whole) : layer_(layer) {
    for (std::size_t i = 0; i < whole.size(); ++i) *layer.members[i].slot.where = whole[i];
  }
  ~StandIn() {
    for (Layer::Member& m : layer_.members) *m.slot.where = m.parameter;
  }
  StandIn(const StandIn&) = delete;
  StandIn& operator=(const StandIn&) = delete;

 private:
  Layer& layer_;
};

at::Tensor run_gathered(const c10::intrusive_ptr<Layer>& layer, const Block& block, const at::Tensor& x) {
  if (!at::GradMode::is_enabled()) {
    const StandIn whole(*layer, layer->gather());
    return block(x);
  }
  const at::Tensor anchor =
      at::zeros({}, x.options().dtype(at::kFloat)).requires_grad_(layer->trains());
  const StandIn whole(*layer, Gather::apply(anchor, layer));
  return block(x);
}

}  // namespace

ShardedLayers::ShardedLayers(Collectives& group, LlavaModel& model,
                             const std::vector<NamedParameter>& trained)
    : group_(group), model_(model) {
  const at::NoGradGuard no_grad;
  std::set<std::string> training;
  for (const NamedParameter& p : trained) training.insert(p.name);
  std::map<std::string, at::Tensor> parameters;
  for (const NamedParameter& p : model.parameters()) parameters.emplace(p.name, p.tensor);
  for (const ParameterSlot& slot : model.slots()) {
    const auto number = layer_of(slot.name);
    if (!number || !parameters.contains(slot.name)) continue;
    while (layers_.size() <= *number) {
      layers_.push_back(c10::make_intrusive<Layer>());
      layers_.back()->number = layers_.size() - 1;
      layers_.back()->group = &group;
    }
    Layer& layer = *layers_[*number];
    Layer::Member& m = layer.members.emplace_back();
    m.slot = slot;
    m.parameter = parameters.at(slot.name);
    m.room = slice_room(m.parameter.numel(), group.size());
    m.trains = training.contains(slot.name);
    if (layer.members.size() > 1) m.offset = layer.members[layer.members.size() - 2].offset + layer.members[layer.members.size() - 2].room;
  }
  for (const auto& layer : layers_) {
    const at::TensorOptions options = layer->members.front().parameter.options().requires_grad(false);
    layer->shards = at::zeros({layer->members.back().offset + layer->members.back().room}, options);
    for (Layer::Member& m : layer->members) {
      LLAVA_ASSERT(m.parameter.scalar_type() == layer->shards.scalar_type(), "a layer has one dtype");
      const Slice slice = slice_of(m.parameter.numel(), group.size(), group.rank());
      m.shard = layer->shards.narrow(0, m.offset, m.room);
      m.shard.narrow(0, 0, slice.length)
          .copy_(m.parameter.detach().reshape(-1).narrow(0, slice.begin, slice.length));
      // the shape stays, for whoever asks; the memory goes
      m.parameter.set_data(at::zeros({1}, options).expand(m.parameter.sizes()));
    }
  }
  model.set_layer_runner([layers = layers_](int number, const Block& block, const at::Tensor& x) {
    const auto& layer = layers.at(static_cast<std::size_t>(number));
    return checkpointed([layer, block](const at::Tensor& in) { return run_gathered(layer, block, in); }, x);
  });
}

ShardedLayers::~ShardedLayers() {
  if (!restored_) model_.set_layer_runner({});
}

bool ShardedLayers::has(const std::string& name) const {
  for (const auto& layer : layers_)
    for (const Layer::Member& m : layer->members)
      if (m.slot.name == name) return true;
  return false;
}

std::vector<NamedParameter> ShardedLayers::slices(bool trained_only) const {
  std::vector<NamedParameter> slices;
  for (const auto& layer : layers_)
    for (const Layer::Member& m : layer->members) {
      if (trained_only && !m.trains) continue;
      const Slice slice = slice_of(m.parameter.numel(), group_.size(), group_.rank());
      if (slice.length > 0) slices.push_back({m.slot.name, m.shard.narrow(0, 0, slice.length)});
    }
  return slices;
}

std::vector<NamedParameter> ShardedLayers::own_slices() const { return slices(/*trained_only=*/true); }

std::vector<NamedParameter> ShardedLayers::all_slices() const { return slices(/*trained_only=*/false); }

void ShardedLayers::connect(Optimizer& optimizer) {
  std::map<std::string, TrainedParameter*> own;
  for (TrainedParameter& p : optimizer.parameters()) own[p.name] = &p;
  for (const auto& layer : layers_)
    for (Layer::Member& m : layer->members)
      if (const auto found = own.find(m.slot.name); found != own.end()) m.own = found->second;
}

void ShardedLayers::set_factor(double factor) {
  for (const auto& layer : layers_) layer->factor = factor;
}

std::vector<float> ShardedLayers::take_flags() {
  std::vector<float> flags;
  for (const auto& layer : layers_)
    for (Layer::Member& m : layer->members)
      if (m.trains) flags.push_back(std::exchange(m.flag, false) ? 1.0f : 0.0f);
  return flags;
}

std::vector<std::string> ShardedLayers::names_without(const float* flags) const {
  std::vector<std::string> names;
  for (const auto& layer : layers_)
    for (const Layer::Member& m : layer->members)
      if (m.trains && *flags++ == 0) names.push_back(m.slot.name);
  return names;
}

void ShardedLayers::restore() {
  const at::NoGradGuard no_grad;
  for (const auto& layer : layers_) {
    const std::vector<at::Tensor> whole = layer->gather();
    for (std::size_t i = 0; i < whole.size(); ++i) layer->members[i].parameter.set_data(whole[i]);
  }
  model_.set_layer_runner({});
  restored_ = true;
}

}  // namespace llava
