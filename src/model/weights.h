#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/llava_model.h"

/// How modules get their weights: each constructor asks for tensors by canonical name and shape, once. Run
/// with a WeightCollector the same constructors list what a config needs; run with a filled reader they
/// build the model.
namespace llava {

/// Where weights come from while a model is built.
class WeightReader {
 public:
  virtual ~WeightReader() = default;
  /// The tensor of that canonical name; the reader answers for shape, dtype and device.
  virtual at::Tensor read(const std::string& name, const std::vector<std::int64_t>& shape) = 0;
};

/// See fused::quantise.
struct Int8Matrix {
  at::Tensor values;  ///< [out,in] int8
  at::Tensor scales;  ///< [out] float32
};

/// A weight matrix with optional bias and optional LoRA pair; the only holder of matrices in the model.
struct Linear {
  std::string name;           ///< canonical module name, without ".weight"
  at::Tensor weight, bias;    ///< [out,in], [out] or undefined
  at::Tensor lora_a, lora_b;  ///< [r,in], [out,r] or undefined
  double lora_scale = 0.0;
  double lora_dropout = 0.0;
  bool lora_enabled = true;  ///< off: the layer answers as if it had no pair
  std::optional<Int8Matrix>
      int8;  ///< used in place of `weight`, which it was made from (FrozenCompute::kInt8)

  bool has_lora() const { return lora_a.defined(); }
  /// x [...,in] -> [...,out]: x W^T + b + scale * dropout(x) A^T B^T, in the type of x.
  at::Tensor operator()(const at::Tensor& x) const;
};

/// Collects the parameters and linears of a model while its modules are constructed. Modules must not move
/// afterwards.
class Builder {
 public:
  explicit Builder(WeightReader& reader) : reader_(reader) {}
  at::Tensor tensor(const std::string& name, const std::vector<std::int64_t>& shape);
  void linear(Linear& into, const std::string& name, std::int64_t in, std::int64_t out, bool bias);
  std::vector<NamedParameter> parameters;
  std::vector<Linear*> linears;

 private:
  WeightReader& reader_;
};

/// weight [n] and bias [n] of a LayerNorm.
struct LayerNorm {
  at::Tensor weight, bias;
  double eps = 1e-5;
  void build(Builder& builder, const std::string& name, std::int64_t size, double epsilon);
  at::Tensor operator()(const at::Tensor& x) const;
};

}  // namespace llava
