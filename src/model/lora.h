#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/lora_config.h"
#include "model/weights.h"

/// Low-rank adapters on the model's linear layers, as PEFT defines them: LoRA (Hu et al. 2021), rsLoRA
/// (Kalajdzievski 2023), DoRA (Liu et al. 2024).
namespace llava {

/// Adds a pair to every layer that `lora` names: A as `lora.init` says, B zero; for DoRA the row norms of W.
/// Returns the layers' names. Error{kUsage} for a rank below 1, a target that is no regular expression or
/// that matches nothing, and a pattern that finds no adapted layer.
std::vector<std::string> add_lora(const std::vector<Linear*>& linears, const LoraConfig& lora);

/// W <- W + scale * B A for all pairs, which are removed. Error{kUnsupported} for packed weights.
void merge_lora(const std::vector<Linear*>& linears);

/// Removes all pairs, the weights stay.
void remove_lora(const std::vector<Linear*>& linears);

/// `weight` [out,in] with the layer's pair in it; sums are made in float32 and rounded once to its dtype.
/// For DoRA the rows then have the lengths of the magnitude vector.
at::Tensor merged_weight(const Linear& linear, const at::Tensor& weight);

void set_lora_enabled(const std::vector<Linear*>& linears, bool enabled);

/// The adapted layer's output [...,out] from its input x [...,in] and the base layer's output y.
at::Tensor add_lora_output(const Linear& linear, const at::Tensor& x, const at::Tensor& y);

}  // namespace llava
