#pragma once
#include <set>
#include <string>
#include <vector>

#include "config/stage_config.h"
#include "model/llava_model.h"

namespace llava {

/// What a stage trains, by part of the model.
struct TrainedCounts {
  std::int64_t tower = 0, connector = 0, decoder = 0, lora = 0;
  std::int64_t total() const { return tower + connector + decoder + lora; }
};
TrainedCounts count_trained(const std::vector<NamedParameter>& trained);
/// Whether one of the parameters is the tower's.
bool trains_tower(const std::vector<NamedParameter>& trained);

bool is_lora_name(const std::string& name);

/// One regular expression for LlavaModel::add_lora: `target` within the decoder, `tower_target` within the
/// vision tower.
std::string lora_pattern(const LoraSettings& lora);

/// Freezes everything, then returns the parameters a stage trains: those whose names a `train` pattern is
/// found in, and all LoRA pairs if the stage has LoRA. Their storage is made writable (weights may be
/// mapped read-only). Error{kInput} for a pattern that finds nothing, with the nearest parameter name.
std::vector<NamedParameter> select_trained(LlavaModel& model, const StageConfig& stage);

/// Brings the model's LoRA pairs to what the stage wants: added, kept (same settings as `current`), or
/// merged into the weights. `touched` gains the names of weights that merging changed. Returns the settings
/// now in force.
std::optional<LoraSettings> apply_lora(LlavaModel& model, const std::optional<LoraSettings>& current,
                                       const std::optional<LoraSettings>& wanted, std::uint64_t seed,
                                       std::set<std::string>& touched);

}  // namespace llava
