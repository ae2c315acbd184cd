#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/llava_model.h"
#include "tensor/nf4.h"

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
  /// The matrix of a linear layer in 4 bits, where the reader packs it; then it is not read() too.
  virtual std::optional<Nf4Matrix> read_packed(const std::string& /*name*/,
                                               const std::vector<std::int64_t>& /*shape*/) {
    return std::nullopt;
  }
  /// The dtype of products with packed matrices; none: the input's.
  virtual std::optional<c10::ScalarType> packed_compute() const { return std::nullopt; }
};

/// See fused::quantise.
struct Int8Matrix {
  at::Tensor values;  ///< [out,in] int8
  at::Tensor scales;  ///< [out] float32
};

/// A weight matrix with optional bias and optional LoRA pair; the only holder of matrices in the model.
struct Linear {
  std::string name;           ///< canonical module name, without ".weight"
  at::Tensor weight, bias;    ///< [out,in] (undefined where `nf4` holds it), [out] or undefined
  at::Tensor lora_a, lora_b;  ///< [r,in], [out,r] or undefined
  at::Tensor lora_magnitude;  ///< [out], for DoRA; else undefined
  double lora_scale = 0.0, lora_alpha = 0.0;
  double lora_dropout = 0.0;
  bool lora_enabled = true;  ///< off: the layer answers as if it had no pair
  std::optional<Int8Matrix>
      int8;  ///< used in place of `weight`, which it was made from (FrozenCompute::kInt8)
  std::optional<Nf4Matrix> nf4;  ///< in place of `weight`: a frozen matrix in 4 bits
  std::optional<c10::ScalarType> nf4_compute;  ///< dtype of its products; none: the input's

  bool has_lora() const { return lora_a.defined(); }
  std::int64_t in_features() const { return nf4 ? nf4->shape[1] : weight.size(1); }
  std::int64_t out_features() const { return nf4 ? nf4->shape[0] : weight.size(0); }
  c10::ScalarType dtype() const { return nf4 ? nf4->dtype : weight.scalar_type(); }
  c10::Device device() const { return nf4 ? nf4->packed.device() : weight.device(); }
  /// The matrix itself, or what its 4 bits stand for, as `dtype`.
  at::Tensor dense_weight(c10::ScalarType dtype) const;
  /// x [...,in] -> [...,out]: x W^T + b + scale * dropout(x) A^T B^T, in the type of x.
  at::Tensor operator()(const at::Tensor& x) const;
  /// Without the pair.
  at::Tensor base(const at::Tensor& x) const;
};

/// Collects the parameters and linears of a model while its modules are constructed. Modules must not move
/// afterwards.
class Builder {
 public:
  explicit Builder(WeightReader& reader) : reader_(reader) {}
  at::Tensor tensor(const std::string& name, const std::vector<std::int64_t>& shape);
  /// tensor(), and where it is kept (LlavaModel::slots).
  void place(at::Tensor& into, const std::string& name, const std::vector<std::int64_t>& shape);
  void linear(Linear& into, const std::string& name, std::int64_t in, std::int64_t out, bool bias);
  std::vector<NamedParameter> parameters;
  std::vector<ParameterSlot> slots;
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
