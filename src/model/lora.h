#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/lora_config.h"
#include "model/weights.h"

/// Low-rank adapters on the model's linear layers, as PEFT defines them (Hu et al. 2021).
namespace llava {

/// Adds a pair to every layer that `lora` names: A kaiming-uniform, B zero. Returns the layers' names.
/// Error{kUsage} for a rank below 1, a target that is no regular expression or that matches nothing.
std::vector<std::string> add_lora(const std::vector<Linear*>& linears, const LoraConfig& lora);

/// W <- W + scale * B A for all pairs, which are removed. Sums are made in float32 and rounded once.
void merge_lora(const std::vector<Linear*>& linears);

void set_lora_enabled(const std::vector<Linear*>& linears, bool enabled);

/// The adapted layer's output [...,out] from its input x [...,in] and the base layer's output y.
at::Tensor add_lora_output(const Linear& linear, const at::Tensor& x, const at::Tensor& y);

}  // namespace llava
