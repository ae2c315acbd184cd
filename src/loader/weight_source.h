#pragma once
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "loader/load_model.h"
#include "loader/memory.h"
#include "model/build_model.h"
#include "tensor/weight_store.h"

/// The pieces load_model is made of; private to this module.
namespace llava {

/// A checkpoint's files under canonical names, and the config with the facts only tensors tell.
struct OpenedWeights {
  WeightStore store;
  ModelConfig config;                    ///< vocabulary rows and tied head as the tensors say
  WeightStore delta_base;                ///< what `store` holds the differences from
  std::set<const TensorFile*> permuted;  ///< llama.cpp's llama files, whose q and k rows are interleaved
};
/// `specs_of` lists what the caller needs of the config (whole model or tower).
using SpecsOf = std::vector<WeightSpec> (*)(const ModelConfig&);
OpenedWeights open_weights(const CheckpointInfo& checkpoint, SpecsOf specs_of);

/// Whether the matrix of that name ("….weight") is packed in 4 bits.
bool is_packed(const std::string& name, const LoadOptions& options);

/// Bytes that `specs` take as options.dtype (or packed): mapped where the file's numbers are used in place.
MemoryNeed memory_need(const OpenedWeights& weights, const std::vector<WeightSpec>& specs,
                       const LoadOptions& options);

std::uint64_t bytes_of(const std::vector<WeightSpec>& specs, c10::ScalarType dtype);
/// check_memory against the machine, or options.memory_limit_bytes.
void check_load_memory(const MemoryNeed& need, const LoadOptions& options, std::string_view what);

/// Hands the store's tensors to the model's modules.
class StoreReader final : public WeightReader {
 public:
  StoreReader(OpenedWeights& weights, const LoadOptions& options) : weights_(weights), options_(options) {}
  at::Tensor read(const std::string& name, const std::vector<std::int64_t>& shape) override;
  std::optional<Nf4Matrix> read_packed(const std::string& name, const std::vector<std::int64_t>& shape) override;
  std::optional<c10::ScalarType> packed_compute() const override;

 private:
  at::Tensor plus_base(const std::string& name, const at::Tensor& difference);
  at::Tensor unpermute(const std::string& name, const at::Tensor& tensor) const;
  OpenedWeights& weights_;
  const LoadOptions& options_;
};

/// Undoes llama.cpp's reordering of q and k rows for its rotary layout: pairs (2i, 2i+1) back to halves (i,
/// i + d/2).
at::Tensor undo_llama_cpp_permutation(const at::Tensor& weight, std::int64_t heads);

/// Seed of one tensor's random numbers, so that they do not depend on the order of reading.
std::uint64_t seed_of(std::string_view name, std::uint64_t seed);

/// A new connector tensor as torch.nn.Linear starts (uniform +-1/sqrt(fan_in)); norms 1 and 0.
at::Tensor new_connector_tensor(const std::string& name, const std::vector<std::int64_t>& shape,
                                std::uint64_t seed);

/// Applies the checkpoint's adapters: merged into the weights, or kept as LoRA pairs.
void apply_adapters(LlavaModel& model, const CheckpointInfo& checkpoint, const LoadOptions& options);

}  // namespace llava
