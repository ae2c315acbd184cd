#pragma once
#include <filesystem>
#include <set>
#include <string>

#include "checkpoint/checkpoint.h"
#include "model/llava_model.h"
#include "train/checkpoint.h"

namespace llava {

/// Writes the trained model so that `--model` reads it. A base with its own weights (Hugging Face or
/// original LLaVA layout) becomes a whole model of the same layout and tensor names, LoRA merged, trained
/// tensors in the model's dtype and all others as they were: Hugging Face reads it too. A base that only
/// names its parts (our layout) becomes mm_projector.safetensors, a PEFT adapter and a config.json that
/// names the same parts. How images are prepared is what `last_stage` says. The folder appears whole or not at all. Error{kUnsupported} if weights of a part
/// that is only named were trained.
void write_final_model(const std::filesystem::path& folder, const CheckpointInfo& base, LlavaModel& model,
                       const TrainState& state, const StageConfig& last_stage);

/// The same complaint before any training.
void check_final_model(const CheckpointInfo& base, const std::set<std::string>& touched);

}  // namespace llava
