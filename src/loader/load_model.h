#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/quantization.h"
#include "model/llava_model.h"
#include "model/vision_tower.h"

namespace llava {

struct LoadOptions {
  c10::Device device = c10::Device(c10::kCPU);
  /// Weights are used in this dtype; equal to the stored one on CPU they stay memory-mapped (read-only: see
  /// make_writable).
  c10::ScalarType dtype = c10::ScalarType::Float;
  bool merge_adapters = true;  ///< false: adapters stay as trainable LoRA pairs
  /// Seed for a connector that no file holds (the start of training); without it a missing connector is an
  /// error.
  std::optional<std::uint64_t> new_connector_seed;
  /// Linear layers that are packed in 4 bits as they are read, tensor by tensor.
  std::optional<QuantizationSettings> quantization;
  std::uint64_t memory_limit_bytes = 0;  ///< 0: what the machine has
};

/// Builds the model and fills it. All missing, unexpected and misshaped tensors are listed in one Error.
/// Before anything is allocated the bytes needed are compared with the memory there is (Error{kResource}
/// with both numbers).
std::unique_ptr<LlavaModel> load_model(const CheckpointInfo& checkpoint, const LoadOptions& options);

/// A vision tower alone, of any layout that has one. Weights as in load_model.
struct LoadedTower {
  std::unique_ptr<VisionTower> tower;
  std::vector<NamedParameter> parameters;
};
LoadedTower load_tower(const CheckpointInfo& checkpoint, const LoadOptions& options);

/// Every tensor of the checkpoint with its canonical name; what is missing or unexpected. For `inspect
/// weights`.
struct WeightReport {
  struct Row {
    std::string name, canonical, file, dtype;
    std::vector<std::int64_t> shape;
    std::size_t bytes;
  };
  std::vector<Row> rows;
  std::vector<std::string> missing, unexpected, misshaped;
};
WeightReport report_weights(const CheckpointInfo& checkpoint);

/// Names of the weights that stay in their files: on a CPU, those stored in `options.dtype` as the model uses them. For
/// memory estimates; no weight is read.
std::set<std::string> mapped_weights(const CheckpointInfo& checkpoint, const LoadOptions& options);

/// The modules of a model without numbers: its parameters are on LibTorch's meta device, whatever their size. For
/// counting what trains; nothing can be computed with it.
std::unique_ptr<LlavaModel> shape_model(const ModelConfig& config, c10::ScalarType dtype);

/// Seeded random weights of a config (tests, `--model random:RECIPE`): matrices N(0, 1/fan_in), norms near
/// 1, so that activations and logits are O(1). A tensor's numbers depend on the seed and its name only.
std::unique_ptr<LlavaModel> random_model(const ModelConfig& config, std::uint64_t seed,
                                         const LoadOptions& options);

}  // namespace llava
