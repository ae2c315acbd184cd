#pragma once
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "config/stage_config.h"
#include "model/llava_model.h"
#include "train/loss_scale.h"
#include "train/optimizer.h"

namespace llava {

/// Where a run stands, besides its tensors.
struct TrainState {
  std::int64_t global_step = 0;            ///< steps done over all stages
  std::int64_t stage = 0, stage_step = 0;  ///< the next step to do
  std::int64_t samples_seen = 0, bad_samples = 0, tokens_seen = 0;
  std::set<std::string> touched;     ///< weights that differ from the base model
  std::optional<LoraSettings> lora;  ///< pairs in the model now
  LossScale loss_scale;              ///< of the stage that runs
  std::string code_version;
};

template <class V>
void visit_fields(V& v, TrainState& s) {
  v("global_step", s.global_step), v("stage", s.stage), v("stage_step", s.stage_step);
  v("samples_seen", s.samples_seen), v("bad_samples", s.bad_samples), v("tokens_seen", s.tokens_seen);
  v("lora", s.lora), v("loss_scale", s.loss_scale), v("code_version", s.code_version);
}

/// Writes `output/checkpoint-<global_step>/`: weights.safetensors (touched weights and LoRA),
/// optimizer.safetensors (masters, moments, steps, random state; absent between stages), state.json,
/// config.yaml, manifest.json (sizes and hashes, written last). It is made under another name and renamed
/// when all of it is on the disk. Then all but the newest `keep` are removed (0: none).
std::filesystem::path save_checkpoint(const std::filesystem::path& output, const TrainState& state,
                                      LlavaModel& model, const Optimizer* optimizer,
                                      const std::string& config_yaml, std::int64_t keep);

/// The newest checkpoint of `output` whose manifest agrees with its files; damaged ones are named in a
/// warning.
std::optional<std::filesystem::path> find_checkpoint(const std::filesystem::path& output);

/// Throws Error{kFormat} naming what is missing or differs from the manifest.
void verify_checkpoint(const std::filesystem::path& folder);

TrainState read_state(const std::filesystem::path& folder);

/// Copies the saved weights into `model` (its LoRA pairs are already there). Error{kFormat} lists names
/// that do not fit.
void load_weights(const std::filesystem::path& folder, LlavaModel& model);

/// Restores moments, masters, step counters and the random state, so that the next step is bit for bit the
/// one that would have followed. Error{kFormat} if the trained parameters are not the saved ones.
void load_optimizer(const std::filesystem::path& folder, Optimizer& optimizer);

}  // namespace llava
