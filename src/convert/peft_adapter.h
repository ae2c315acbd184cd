#pragma once
#include <filesystem>
#include <set>
#include <string>

#include "checkpoint/checkpoint.h"
#include "config/lora_settings.h"
#include "model/llava_model.h"

namespace llava {

/// Writes a model's pairs as PEFT does: adapter_model.safetensors and adapter_config.json in the existing
/// `folder`, under the names that the base's layout has while it runs (module_name()). `whole`: parameters that
/// trained beside the pairs; their modules become modules_to_save. `base_name`: base_model_name_or_path.
void write_peft_adapter(const std::filesystem::path& folder, const CheckpointInfo& base, LlavaModel& model,
                        const LoraSettings& lora, const std::set<std::string>& whole, const std::string& base_name);

/// A fingerprint of a checkpoint's decoder and tower: names, shapes and samples of the numbers, the same in every
/// layout and 16-bit or wider dtype. An adapter carries its base's, in the metadata of its weight file.
std::string base_fingerprint(const CheckpointInfo& base);

/// The fingerprint that an adapter's file carries; empty: none (PEFT's own files).
std::string fingerprint_of_adapter(const AdapterFiles& adapter);

}  // namespace llava
