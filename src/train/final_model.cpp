#include "train/final_model.h"

#include <torch/torch.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "loader/weight_names.h"
#include "tensor/convert.h"
#include "train/stage_setup.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

using Part = WeightSource::Part;

bool is_connector(const std::string& name) { return name.rfind("mm_projector.", 0) == 0; }
bool is_tower(const std::string& name) { return name.rfind("vision_tower.", 0) == 0; }

std::map<std::string, at::Tensor> parameters_by_name(LlavaModel& model) {
  std::map<std::string, at::Tensor> parameters;
  for (const NamedParameter& p : model.parameters()) parameters.emplace(p.name, p.tensor);
  return parameters;
}

/// What a tensor of a separate file is called inside an original LLaVA checkpoint.
std::string inside_name(const std::string& stored, Part part) {
  if (part == Part::kVisionTower) return "model.vision_tower.vision_tower." + stored;
  if ((part == Part::kConnector || part == Part::kNonLora) && stored.rfind("model.", 0) != 0) {
    const std::size_t at = stored.find("mm_projector.");
    if (at != std::string::npos) return "model." + stored.substr(at);
  }
  return stored;
}

/// All tensors of the base under their stored names; those that changed come from the model.
void write_whole_weights(const fs::path& file, const CheckpointInfo& base, LlavaModel& model,
                         const std::set<std::string>& touched) {
  const auto parameters = parameters_by_name(model);
  const bool tower_changed = std::any_of(touched.begin(), touched.end(), is_tower);
  TensorWriter writer;
  std::set<std::string> written;
  for (auto source = base.weights.rbegin(); source != base.weights.rend();
       ++source) {                                                       // later sources override
    if (source->part == Part::kVisionTower && !tower_changed) continue;  // still named in config.json
    const std::shared_ptr<const TensorFile> tensors =
        source->file ? source->file : std::shared_ptr<const TensorFile>(open_tensor_file(source->path));
    for (const TensorView& view : tensors->tensors()) {
      const std::string canonical = canonical_name(view.name, source->part);
      if (!written.insert(canonical).second) continue;
      const auto changed = touched.contains(canonical) ? parameters.find(canonical) : parameters.end();
      writer.add(inside_name(view.name, source->part),
                 changed != parameters.end() ? changed->second : to_tensor(view, tensors));
    }
  }
  std::vector<std::string> lost;
  std::copy_if(touched.begin(), touched.end(), std::back_inserter(lost),
               [&](const auto& name) { return !written.contains(name); });
  if (!lost.empty())
    fail(ErrorKind::kInternal, "trained weights that the base's files do not hold: {}",
         fmt::join(lost, ", "));
  writer.set_metadata({{"format", "pt"}});
  writer.write(file);
}

/// Tokenizer, processor and template files, from the checkpoint's folder and then from where its weights
/// are.
void copy_side_files(const fs::path& target, const CheckpointInfo& base) {
  std::vector<fs::path> folders = {base.folder};
  for (const WeightSource& source : base.weights)
    if (source.part != Part::kVisionTower) folders.push_back(source.path.parent_path());
  static const std::set<std::string> kinds = {".json", ".model", ".txt", ".jinja", ".md"};
  for (const fs::path& folder : folders)
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      const bool side = entry.is_regular_file() && kinds.contains(entry.path().extension().string());
      const bool weights = name.ends_with(".index.json") || name.starts_with("adapter_");
      if (side && !weights && name != "config.json" && !fs::exists(target / name))
        fs::copy_file(entry.path(), target / name);
    }
}

void write_whole_model(const fs::path& folder, const CheckpointInfo& base, LlavaModel& model,
                       const TrainState& state) {
  std::set<std::string> touched = state.touched;
  for (const auto& [name, tensor] : parameters_by_name(model))
    if (const auto at = name.find(".lora_A.weight"); at != std::string::npos)
      touched.insert(name.substr(0, at) + ".weight");
  model.merge_lora();
  write_whole_weights(folder / "model.safetensors", base, model, touched);
  Json config = base.config;
  for (const char* key : {"dtype", "torch_dtype"})
    if (config.contains(key)) config[key] = dtype_name(model.dtype());
  if (config.contains("mm_vision_tower"))
    for (const WeightSource& source : base.weights)
      if (source.part == Part::kVisionTower)
        config["mm_vision_tower"] = fs::absolute(source.path.parent_path()).string();
  write_file_atomic(folder / "config.json", config.dump(2) + "\n");
  copy_side_files(folder, base);
}

void write_adapter(const fs::path& folder, const Json& config, LlavaModel& model,
                   const LoraSettings& lora) {
  TensorWriter writer;
  std::set<std::string> modules;
  for (const auto& [name, tensor] : parameters_by_name(model)) {
    if (!is_lora_name(name)) continue;
    const std::string decoder = "language_model.";
    const bool in_decoder = name.rfind(decoder, 0) == 0;
    writer.add("base_model.model." + (in_decoder ? "model." + name.substr(decoder.size()) : name), tensor);
    const std::string module = name.substr(0, name.find(".lora_"));
    modules.insert(module.substr(module.rfind('.') + 1));
  }
  writer.set_metadata({{"format", "pt"}});
  writer.write(folder / "adapter_model.safetensors");
  const Json adapter = {{"peft_type", "LORA"},
                        {"task_type", "CAUSAL_LM"},
                        {"base_model_name_or_path", config["language_model"]},
                        {"r", lora.r},
                        {"lora_alpha", lora.lora_alpha},
                        {"lora_dropout", lora.dropout},
                        {"target_modules", modules},
                        {"bias", "none"},
                        {"use_rslora", lora.use_rslora},
                        {"use_dora", false},
                        {"fan_in_fan_out", false},
                        {"init_lora_weights", true},
                        {"inference_mode", true}};
  write_file_atomic(folder / "adapter_config.json", adapter.dump(2) + "\n");
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
  if (state.lora) write_adapter(folder, config, model, *state.lora);
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
                       const TrainState& state) {
  const at::NoGradGuard no_grad;
  const fs::path building = folder.string() + ".tmp";
  try {
    fs::remove_all(building);
    fs::create_directories(building);
    if (base.layout == Layout::kNano) {
      write_parts(building, base, model, state);
    } else {
      write_whole_model(building, base, model, state);
    }
    fs::remove_all(folder);
    fs::rename(building, folder);
  } catch (const fs::filesystem_error& e) {
    fail(ErrorKind::kResource, "cannot write {}: {}", folder.string(), e.what());
  }
}

}  // namespace llava
