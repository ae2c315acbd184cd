#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/llava_model.h"

namespace llava {

struct LoadOptions {
  c10::Device device = c10::Device(c10::kCPU);
  /// Weights are used in this dtype; equal to the stored one on CPU they stay memory-mapped.
  c10::ScalarType dtype = c10::ScalarType::Float;
  bool merge_adapters = true;     ///< false: adapters stay as trainable LoRA pairs
};

/// Builds the model and fills it. All missing, unexpected and misshaped tensors are listed in one Error. Before anything is
/// allocated the bytes needed are compared with the memory there is (Error{kResource} with both numbers).
std::unique_ptr<LlavaModel> load_model(const CheckpointInfo& checkpoint, const LoadOptions& options);

/// Every tensor of the checkpoint with its canonical name; what is missing or unexpected. For `inspect weights`.
struct WeightReport {
  struct Row { std::string name, canonical, file, dtype; std::vector<std::int64_t> shape; std::size_t bytes; };
  std::vector<Row> rows;
  std::vector<std::string> missing, unexpected, misshaped;
};
WeightReport report_weights(const CheckpointInfo& checkpoint);

/// Seeded random weights of a config (tests, `--model random:RECIPE`).
std::unique_ptr<LlavaModel> random_model(const ModelConfig& config, std::uint64_t seed, const LoadOptions& options);

}  // namespace llava
