#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "config/stage_config.h"
#include "model/llava_model.h"
#include "train/loss_scale.h"
#include "train/optimizer.h"
#include "train/watch_state.h"

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
  GuardState guard;
  ValidationState validation;
};

template <class V>
void visit_fields(V& v, TrainState& s) {
  v("global_step", s.global_step), v("stage", s.stage), v("stage_step", s.stage_step);
  v("samples_seen", s.samples_seen), v("bad_samples", s.bad_samples), v("tokens_seen", s.tokens_seen);
  v("lora", s.lora), v("loss_scale", s.loss_scale), v("code_version", s.code_version);
  v("guard", s.guard), v("validation", s.validation);
}

/// Named tensors of one file of a checkpoint.
struct CheckpointFile {
  std::string name;
  std::vector<NamedParameter> tensors;
};

/// All that a checkpoint holds, as it is written.
struct CheckpointContent {
  std::int64_t step = 0;
  std::vector<CheckpointFile> files;
  std::vector<std::pair<std::string, std::string>> texts;  ///< file name, content
  std::vector<std::filesystem::path> ready;  ///< files that other processes have written; they move into it
  std::int64_t bytes() const;
};

/// What training goes on from, apart from the weights: null between stages.
struct RunningState {
  const Optimizer* optimizer = nullptr;
  std::vector<NamedParameter> averages;  ///< of the weights; may be empty
};

/// weights.safetensors (touched weights and LoRA), and with `running` optimizer.safetensors (masters,
/// moments, steps, random states) and ema.safetensors; state.json and config.yaml. With `copy` the tensors
/// are copies in host memory that later steps do not change.
CheckpointContent take_content(const TrainState& state, LlavaModel& model, const RunningState* running,
                               const std::string& config_yaml, bool copy);

/// Writes `output/checkpoint-<step>/`: the content, then manifest.json with sizes and hashes. It is made
/// under another name and put in place when all of it is on the disk; one of the same step is replaced.
/// Error{kResource} leaves what was there: too little space (checked before anything is written), or what
/// could not be written. `on_phase`, if given, is called before "files", "manifest" and "rename".
std::filesystem::path write_checkpoint(const std::filesystem::path& output,
                                       const CheckpointContent& content,
                                       const std::function<void(std::string_view)>& on_phase = {});

/// The newest checkpoint of `output` whose manifest agrees with its files; damaged ones are named in a
/// warning.
std::optional<std::filesystem::path> find_checkpoint(const std::filesystem::path& output);

/// Throws Error{kFormat} naming what is missing or differs from the manifest.
void verify_checkpoint(const std::filesystem::path& folder);

TrainState read_state(const std::filesystem::path& folder);

/// Copies the saved weights into `model` (its LoRA pairs are already there). Error{kFormat} lists names
/// that do not fit.
void load_weights(const std::filesystem::path& folder, LlavaModel& model);

/// Restores moments, masters, step counters and the random states, so that the next step is bit for bit the
/// one that would have followed. Error{kFormat} if the trained parameters are not the saved ones.
void load_optimizer(const std::filesystem::path& folder, Optimizer& optimizer, c10::Device device);

/// Copies the tensors of `folder/name` into those of the same names. Error{kFormat}: a name or shape that
/// the other side does not have.
void load_tensors(const std::filesystem::path& folder, const std::string& name,
                  const std::vector<NamedParameter>& into);

}  // namespace llava
