#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/weights.h"

namespace llava {

/// An adapter's tensors by canonical names, without a model.
struct AdapterTensors {
  std::map<std::string, Linear> layers;     ///< module -> its pair, scale and magnitude (no weight)
  std::map<std::string, at::Tensor> whole;  ///< parameter -> its new value (modules_to_save)
};

/// Reads an adapter in float32. `known`: the base's parameters and their shapes. One Error{kInput} lists everything that does not
/// belong to them or is missing.
AdapterTensors read_adapter_tensors(const AdapterFiles& adapter, const std::map<std::string, std::vector<std::int64_t>>& known);

}  // namespace llava
