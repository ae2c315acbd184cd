#include "model/weights.h"

#include <torch/torch.h>

#include "model/fused.h"
#include "model/lora.h"
#include "model/nf4_linear.h"

namespace llava {

at::Tensor Linear::dense_weight(c10::ScalarType dtype) const {
  return nf4 ? dequantise_nf4(*nf4, dtype) : weight.to(dtype);
}

at::Tensor Linear::base(const at::Tensor& x) const {
  if (int8) return fused::int8_linear(x, *int8, bias);
  if (nf4) return nf4_linear(x, *nf4, bias, nf4_compute.value_or(x.scalar_type()));
  const auto like_x = [&](const at::Tensor& t) { return t.defined() ? t.to(x.scalar_type()) : t; };
  return at::linear(x, like_x(weight), like_x(bias));
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  const at::Tensor y = base(x);
  return has_lora() && lora_enabled ? add_lora_output(*this, x, y) : y;
}

at::Tensor Builder::tensor(const std::string& name, const std::vector<std::int64_t>& shape) {
  at::Tensor tensor = reader_.read(name, shape);
  parameters.push_back({name, tensor});
  return tensor;
}

void Builder::place(at::Tensor& into, const std::string& name, const std::vector<std::int64_t>& shape) {
  into = tensor(name, shape);
  slots.push_back({name, &into});
}

void Builder::linear(Linear& into, const std::string& name, std::int64_t in, std::int64_t out, bool bias) {
  into.name = name;
  into.nf4 = reader_.read_packed(name + ".weight", {out, in});
  if (into.nf4) {
    into.nf4_compute = reader_.packed_compute();
    parameters.push_back({name + ".weight", into.nf4->packed});
  } else {
    place(into.weight, name + ".weight", {out, in});
  }
  if (bias) place(into.bias, name + ".bias", {out});
  linears.push_back(&into);
}

void LayerNorm::build(Builder& builder, const std::string& name, std::int64_t size, double epsilon) {
  weight = builder.tensor(name + ".weight", {size});
  bias = builder.tensor(name + ".bias", {size});
  eps = epsilon;
}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, weight.sizes(), weight.to(x.scalar_type()), bias.to(x.scalar_type()), eps);
}

}  // namespace llava
