#include "model/fused_block.h"

#include <torch/torch.h>

#include <array>
#include <atomic>

#include "model/block_products.h"
#include "model/floats.h"
#include "model/kernels.h"

namespace llava::fused {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

std::atomic<bool> blocks_enabled = true;

/// The indices of a block's parameters in the list that the graph knows.
struct Plan : torch::CustomClassHolder {
  Group qkv, o, gate_up, down;
  std::size_t norm1 = 0, norm2 = 0;
  double eps = 0;
  std::shared_ptr<const BlockContext> context;
};

/// Memory that blocks use one after the other: a fresh allocation of this size costs more in page faults than the
/// arithmetic on it.
enum Slot { kNormed, kQkv, kAttended, kMiddle, kGated, kSilu, kOut, kGrad, kSiluGrad, kWideGrad, kGradIn, kSlots };

at::Tensor scratch(Slot slot, std::int64_t rows, std::int64_t columns) {
  static thread_local std::array<at::Tensor, kSlots> buffers;
  return grown(buffers[slot], rows, columns);
}

/// One pass through a block, forwards or backwards.
class Pass {
 public:
  Pass(const Plan& plan, const std::vector<at::Tensor>& parameters, const at::Tensor& x)
      : plan_(plan), shape_(plan.context->attention), parameters_(parameters), products_(parameters, x.scalar_type()),
        store_(x.scalar_type()), rows_(x.size(0)), width_(x.size(1)), ffn_(products_.out_size(plan.gate_up) / 2) {}

  struct Kept {
    at::Tensor middle, qkv, attended, lse, gated;
  };

  at::Tensor forward(const at::Tensor& x, Kept* kept) {
    const at::Tensor wide = widened(x, kGrad);
    at::Tensor qkv = buffer(kQkv, shape_.columns(), kept), attended = buffer(kAttended, shape_.heads * shape_.width, kept);
    at::Tensor lse = at::empty({rows_, shape_.heads}, wide.options());
    products_.forward(plan_.qkv, normed(wide, plan_.norm1), qkv);
    turn(qkv, 1);
    if (!covered()) attended.zero_(), lse.zero_();
    kernels::attention(shape_, floats(std::as_const(qkv)), floats(attended), floats(lse));
    at::Tensor middle = buffer(kMiddle, width_, kept);
    products_.forward(plan_.o, attended, middle);
    middle.add_(wide);
    at::Tensor gated = buffer(kGated, 2 * ffn_, kept), out = buffer(kOut, width_, kept);
    products_.forward(plan_.gate_up, normed(middle, plan_.norm2), gated);
    products_.forward(plan_.down, silu(gated), out);
    out.add_(middle);
    if (kept != nullptr) *kept = {keep(middle), keep(qkv), keep(attended), lse, keep(gated)};
    return store_ == at::kFloat && kept == nullptr ? out.clone() : out.to(store_);
  }

  /// Fills `grads` of the parameters and returns the gradient of x.
  at::Tensor backward(const at::Tensor& grad, const at::Tensor& x, const Kept& kept, variable_list& grads) {
    const at::Tensor g = widened(grad.contiguous(), kGrad), gated = widened(kept.gated, kGated);
    at::Tensor silu_grad = scratch(kSiluGrad, rows_, ffn_), wide_grad = scratch(kWideGrad, rows_, 2 * ffn_);
    products_.backward(plan_.down, g, silu(gated), silu_grad, grads);
    kernels::silu_gate_pairs_backward(floats(std::as_const(silu_grad)), floats(gated), rows_, ffn_, floats(wide_grad));
    const at::Tensor middle_grad = through_norm(plan_.gate_up, plan_.norm2, wide_grad, widened(kept.middle, kMiddle), g, kOut, grads);
    const at::Tensor attended = widened(kept.attended, kAttended), qkv = widened(kept.qkv, kQkv);
    at::Tensor attended_grad = scratch(kGradIn, rows_, shape_.heads * shape_.width);
    products_.backward(plan_.o, middle_grad, attended, attended_grad, grads);
    at::Tensor qkv_grad = scratch(kWideGrad, rows_, shape_.columns());
    if (!covered()) qkv_grad.zero_();
    kernels::attention_backward(shape_, floats(std::as_const(attended_grad)), floats(qkv), floats(attended), floats(kept.lse),
                                floats(qkv_grad));
    turn(qkv_grad, -1);
    const at::Tensor out = through_norm(plan_.qkv, plan_.norm1, qkv_grad, widened(x, kMiddle), middle_grad, kGrad, grads);
    return store_ == at::kFloat ? out.clone() : out.to(store_);
  }

 private:
  /// Memory for a value; its own where the value is kept as it is.
  at::Tensor buffer(Slot slot, std::int64_t columns, const Kept* kept) const {
    if (store_ != at::kFloat || kept == nullptr) return scratch(slot, rows_, columns);
    return at::empty({rows_, columns}, at::kFloat);
  }
  at::Tensor keep(const at::Tensor& x) const { return x.to(store_); }
  at::Tensor widened(const at::Tensor& x, Slot slot) const {
    if (x.scalar_type() == at::kFloat) return x;
    return scratch(slot, x.size(0), x.size(1)).copy_(x);
  }
  bool covered() const {
    std::int64_t sum = 0;
    for (const kernels::Stretch& s : shape_.stretches) sum += s.length;
    return sum == rows_;
  }
  at::Tensor normed(const at::Tensor& x, std::size_t weight) {
    at::Tensor out = scratch(kNormed, rows_, width_);
    const at::Tensor scale = norm_weight(weight);
    inverse_ = at::empty({rows_}, at::kFloat);
    kernels::rms_norm(floats(x), floats(scale), static_cast<float>(plan_.eps), rows_, width_, floats(out),
                      floats(inverse_));
    return out;
  }
  at::Tensor norm_weight(std::size_t index) const { return parameters_[index].detach().to(at::kFloat).contiguous(); }
  at::Tensor silu(const at::Tensor& gated) const {
    at::Tensor out = scratch(kSilu, rows_, ffn_);
    kernels::silu_gate_pairs(floats(gated), rows_, ffn_, floats(out));
    return out;
  }
  void turn(at::Tensor& qkv, float sign) const {
    const BlockContext& c = *plan_.context;
    kernels::rotate_in_place(floats(qkv), shape_.columns(), floats(c.cos), floats(c.sin), sign, rows_,
                             shape_.heads + shape_.kv_heads, shape_.width);
  }
  /// Gradient at the input `x` of norm and products, plus that of the path around them.
  at::Tensor through_norm(const Group& group, std::size_t norm, const at::Tensor& grad, const at::Tensor& x,
                          const at::Tensor& around, Slot into, variable_list& grads) {
    at::Tensor normed_grad = scratch(kGradIn, rows_, width_), sum = scratch(into == kGrad ? kSiluGrad : into, rows_, width_);
    const at::Tensor input = normed(x, norm);
    products_.backward(group, grad, input, normed_grad, grads);
    const at::Tensor weight = norm_weight(norm);
    kernels::rms_norm_backward(floats(std::as_const(normed_grad)), floats(x), floats(weight), floats(std::as_const(inverse_)), rows_,
                               width_, floats(sum));
    if (parameters_[norm].requires_grad())
      grads[norm] = normed_grad.mul_(x).mul_(inverse_.unsqueeze(1)).sum(0).to(parameters_[norm].scalar_type());
    return sum.add_(around);
  }

  const Plan& plan_;
  const kernels::AttentionShape& shape_;
  const std::vector<at::Tensor>& parameters_;
  BlockProducts products_;
  c10::ScalarType store_;
  std::int64_t rows_, width_, ffn_;
  at::Tensor inverse_;
};

class DecoderBlock : public Function<DecoderBlock> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, at::TensorList parameters,
                            const c10::intrusive_ptr<Plan>& plan, bool training) {
    const std::vector<at::Tensor> list = parameters.vec();
    Pass pass(*plan, list, x);
    if (!training) return pass.forward(x, nullptr);
    Pass::Kept kept;
    at::Tensor out = pass.forward(x, &kept);
    variable_list saved = {x, kept.middle, kept.qkv, kept.attended, kept.lse, kept.gated};
    saved.insert(saved.end(), list.begin(), list.end());
    context->save_for_backward(std::move(saved));
    context->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const auto plan = c10::static_intrusive_pointer_cast<Plan>(context->saved_data["plan"].toCapsule());
    const std::vector<at::Tensor> parameters(saved.begin() + 6, saved.end());
    variable_list found(parameters.size());
    Pass pass(*plan, parameters, saved[0]);
    const at::Tensor gx =
        pass.backward(grads[0], saved[0], {saved[1], saved[2], saved[3], saved[4], saved[5]}, found);
    variable_list out = {gx};
    out.insert(out.end(), found.begin(), found.end());
    out.resize(out.size() + 2);
    return out;
  }
};

bool linear_fits(const Linear& linear, c10::ScalarType dtype) {
  if (!linear.weight.defined() || linear.weight.scalar_type() != dtype) return false;
  if (linear.int8 && linear.weight.requires_grad()) return false;
  if (linear.nf4 || linear.lora_magnitude.defined()) return false;
  if (!linear.has_lora() || !linear.lora_enabled) return true;
  return linear.lora_dropout == 0 || !linear.lora_a.requires_grad() || !at::GradMode::is_enabled();
}

/// Puts a layer's tensors into `list` and says where they are.
Part add_part(const Linear& linear, std::vector<at::Tensor>& list) {
  const auto add = [&](const at::Tensor& t) {
    list.push_back(t);
    return static_cast<std::ptrdiff_t>(list.size()) - 1;
  };
  Part part;
  part.weight = static_cast<std::size_t>(add(linear.weight));
  if (linear.int8) part.int8 = add(linear.int8->values), add(linear.int8->scales);
  if (linear.bias.defined()) part.bias = add(linear.bias);
  if (linear.has_lora() && linear.lora_enabled) {
    part.a = add(linear.lora_a), part.b = add(linear.lora_b);
    part.scale = linear.lora_scale;
  }
  return part;
}

}  // namespace

bool block_fits(const BlockParts& p, const at::Tensor& x, std::int64_t head_dim) {
  const auto dtype = x.scalar_type();
  if (!blocks_enabled || !x.device().is_cpu() || x.numel() == 0 || head_dim % 16 != 0) return false;
  if (dtype != at::kFloat && dtype != at::kBFloat16) return false;
  for (const Linear* linear : {p.q, p.k, p.v, p.o, p.gate, p.up, p.down})
    if (!linear_fits(*linear, dtype)) return false;
  // matrices of one input are multiplied in one way
  const auto alike = [](const Linear* a, const Linear* b) { return a->int8.has_value() == b->int8.has_value(); };
  return alike(p.q, p.k) && alike(p.q, p.v) && alike(p.gate, p.up);
}

at::Tensor decoder_block(const BlockParts& p, const at::Tensor& x, const std::shared_ptr<const BlockContext>& context) {
  auto plan = c10::make_intrusive<Plan>();
  std::vector<at::Tensor> list;
  for (const Linear* linear : {p.q, p.k, p.v}) plan->qkv.push_back(add_part(*linear, list));
  plan->o = {add_part(*p.o, list)};
  plan->gate_up = {add_part(*p.gate, list), add_part(*p.up, list)};
  plan->down = {add_part(*p.down, list)};
  plan->norm1 = list.size(), plan->norm2 = list.size() + 1;
  list.push_back(p.norm1), list.push_back(p.norm2);
  plan->eps = p.eps;
  plan->context = context;
  bool training = x.requires_grad();
  for (const at::Tensor& t : list) training |= t.requires_grad();
  return DecoderBlock::apply(x.contiguous(), at::TensorList(list), plan, training && at::GradMode::is_enabled());
}

void set_blocks_enabled(bool enabled) { blocks_enabled = enabled; }

}  // namespace llava::fused
