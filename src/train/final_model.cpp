#include "train/final_model.h"

#include <torch/torch.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "convert/convert.h"
#include "convert/peft_adapter.h"
#include "model/lora.h"
#include "tensor/convert.h"
#include "train/final_policy.h"
#include "train/stage_setup.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

using Part = WeightSource::Part;

bool is_connector(const std::string& name) { return name.rfind("mm_projector.", 0) == 0; }

std::map<std::string, at::Tensor> parameters_by_name(LlavaModel& model) {
  std::map<std::string, at::Tensor> parameters;
  for (const NamedParameter& p : model.parameters()) parameters.emplace(p.name, p.tensor);
  return parameters;
}

/// The trained model as changes of its base: parameters that trained, and pairs merged. A packed layer's pair goes
/// into the base's own numbers, not into what its 4 bits stand for.
ModelWriting trained_changes(LlavaModel& model, const std::set<std::string>& touched) {
  ModelWriting writing;
  writing.changed = touched;
  writing.changed_dtype = model.dtype();
  std::map<std::string, const Linear*> adapted;
  for (const Linear* linear : model.linears())
    if (linear->has_lora()) adapted.emplace(linear->name + ".weight", linear);
  for (const auto& [name, linear] : adapted) writing.changed.insert(name);
  writing.change = [adapted, parameters = parameters_by_name(model)](const std::string& name,
                                                                     const std::function<at::Tensor()>& stored) {
    const auto pair = adapted.find(name);
    if (pair == adapted.end()) return parameters.at(name);
    const Linear& linear = *pair->second;
    return merged_weight(linear, linear.nf4 ? stored() : linear.weight);
  };
  return writing;
}

/// The parts stay where they are; the new config.json names them by absolute path.
Json parts_config(const CheckpointInfo& base) {
  Json config = base.config;
  for (const WeightSource& source : base.weights) {
    const fs::path path = fs::absolute(source.path).lexically_normal();
    if (source.part == Part::kVisionTower) config["vision_tower"] = path.parent_path().string();
    if (source.part == Part::kDecoder)
      config["language_model"] = path.extension() == ".gguf" ? path.string() : path.parent_path().string();
  }
  return config;
}

void write_parts(const fs::path& folder, const CheckpointInfo& base, LlavaModel& model,
                 const TrainState& state) {
  TensorWriter writer;
  for (const auto& [name, tensor] : parameters_by_name(model))
    if (is_connector(name) && !is_lora_name(name)) writer.add(name, tensor);
  writer.set_metadata({{"format", "pt"}});
  writer.write(folder / "mm_projector.safetensors");
  const Json config = parts_config(base);
  if (state.lora)
    write_peft_adapter(folder, base, model, *state.lora, {}, config["language_model"].get<std::string>());
  write_file_atomic(folder / "config.json", config.dump(2) + "\n");
  for (const char* name : {"preprocessor_config.json", "generation_config.json"})
    if (fs::exists(base.folder / name)) fs::copy_file(base.folder / name, folder / name);
}

}  // namespace

void check_final_model(const CheckpointInfo& base, const std::set<std::string>& touched) {
  if (base.layout == Layout::kGguf || base.layout == Layout::kHfVision)
    fail(ErrorKind::kUnsupported, "{}: a checkpoint of layout {} cannot be trained and saved",
         base.folder.string(), to_string(base.layout));
  if (base.layout != Layout::kNano) return;
  for (const std::string& name : touched)
    if (!is_connector(name))
      throw Error(
          ErrorKind::kUnsupported,
          fmt::format("{}: \"{}\" belongs to a part that is only named and cannot be saved",
                      base.folder.string(), name),
          "train it with `lora`, with the same settings in every stage, or start from a whole model");
}

void write_final_model(const fs::path& folder, const CheckpointInfo& base, LlavaModel& model,
                       const TrainState& state, const StageConfig& last_stage) {
  const at::NoGradGuard no_grad;
  const bool parts = base.layout == Layout::kNano;
  if (state.lora && !parts)
    write_folder_atomic(folder.parent_path() / "adapter", true, [&](const fs::path& building) {
      write_peft_adapter(building, base, model, *state.lora, state.touched, fs::absolute(base.folder).string());
    });
  write_folder_atomic(folder, true, [&](const fs::path& building) {
    if (parts) {
      write_parts(building, base, model, state);
    } else {
      write_model(building, folder, base, trained_changes(model, state.touched));
    }
    write_final_policy(building, base, last_stage);
  });
}

}  // namespace llava
