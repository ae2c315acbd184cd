#pragma once
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint.h"

namespace llava {

/// The canonical name (docs/formats.md) of a tensor of a checkpoint file: Hugging Face text models,
/// llava-hf before and after 4.52, the original LLaVA, separate towers (CLIP, SigLIP, DINOv2), connector
/// files and our own. A name no rule knows comes back as it is.
std::string canonical_name(std::string_view name, WeightSource::Part part);

/// The canonical name of a GGUF tensor ("blk.3.attn_q.weight"); unknown names come back as they are.
std::string canonical_gguf_name(std::string_view name);

/// A PEFT adapter's tensor, "base_model.model.…q_proj.lora_A.weight", as
/// "language_model.…q_proj.lora_A.weight".
std::string canonical_adapter_name(std::string_view name);

/// True for tensors that files legally hold and a model does not use: buffers (position_ids, rotary
/// inv_freq), pooling heads, CLIP's text half, DINOv2's mask token, the tower's last norm and the blocks
/// above the selected layer. `wanted` are the canonical names the model does use.
bool is_legally_unused(const std::string& canonical, const std::set<std::string, std::less<>>& wanted);

}  // namespace llava
