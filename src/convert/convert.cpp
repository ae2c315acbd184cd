#include "convert/convert.h"

#include <torch/torch.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "convert/layout_config.h"
#include "convert/peft_adapter.h"
#include "convert/side_files.h"
#include "loader/adapter.h"
#include "loader/weight_source.h"
#include "model/build_model.h"
#include "model/lora.h"
#include "tensor/convert.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kRowBlock = 64;  // rows added for new tokens fill up to a multiple, as in llava-hf's files

std::string written_dtype(const CheckpointInfo& base, const ModelWriting& writing) {
  if (writing.dtype) return dtype_name(*writing.dtype);
  if (writing.changed_dtype) return dtype_name(*writing.changed_dtype);
  for (const char* key : {"dtype", "torch_dtype"})  // files may hold several; readers take this one for all
    if (base.config.contains(key) && base.config[key].is_string()) {
      const std::string name = base.config[key];
      return name.starts_with("torch.") ? name.substr(6) : name;
    }
  return base.model.torch_dtype;
}

bool stands_in(const CheckpointInfo& base, TargetLayout target) {
  if (target == TargetLayout::kSame) return true;
  return target == TargetLayout::kHf ? base.layout == Layout::kHfLlava || base.layout == Layout::kHfText
                                     : base.layout == Layout::kOriginalLlava;
}

/// The base's own config.json, its dtype and the tower's place brought up to date.
void write_same(const fs::path& folder, const CheckpointInfo& base, const ModelWriting& writing) {
  write_weights(folder, base, writing);
  Json config = base.config;
  const std::string dtype = written_dtype(base, writing);
  for (const char* key : {"dtype", "torch_dtype"})
    if (config.contains(key)) config[key] = dtype;
  if (config.contains("mm_vision_tower"))
    for (const WeightSource& source : base.weights)
      if (source.part == WeightSource::Part::kVisionTower)
        config["mm_vision_tower"] = fs::absolute(source.path.parent_path()).lexically_normal().string();
  write_file_atomic(folder / "config.json", config.dump(2) + "\n");
  copy_side_files(folder, base);
}

/// A text model's or LLaVA's config and files as transformers reads them. The original's prompts have no token for an
/// image: one is added behind the vocabulary.
void write_hf(const fs::path& folder, const CheckpointInfo& base, ModelWriting writing) {
  copy_side_files(folder, base);
  Json config;
  if (!base.model.tower) {
    config = text_config_json(base.model);
    const std::string& type = base.model.decoder.model_type;
    config["architectures"] = {type == "mistral" ? "MistralForCausalLM" : type == "qwen2" ? "Qwen2ForCausalLM" : "LlamaForCausalLM"};
  } else {
    std::int64_t token = base.model.image_token_id;
    const std::int64_t rows = base.model.decoder.vocab_size;
    if (token < 0 && base.tokenizer) token = base.tokenizer->token_to_id("<image>").value_or(-1);
    const bool added = token < 0;
    if (added) token = rows;
    if (token >= rows) writing.vocab_size = (token + kRowBlock) / kRowBlock * kRowBlock;
    config = hf_llava_config(base.model, token, writing.vocab_size > 0 ? writing.vocab_size : rows);
    if (added) add_special_token(folder, "<image>", token);
    write_hf_processor(folder, base);
    if (!write_chat_template(folder, base))
      log_warning("convert", "no chat template is written for the format {}",
                  base.chat_format ? base.chat_format->name() : "(none)");
  }
  write_weights(folder, base, writing);
  config["torch_dtype"] = written_dtype(base, writing);
  write_file_atomic(folder / "config.json", config.dump(2) + "\n");
}

/// The original code loads its tower from a folder of its own, which stands inside.
void write_original(const fs::path& folder, const fs::path& final_folder, const CheckpointInfo& base,
                    ModelWriting writing) {
  copy_side_files(folder, base);
  for (const char* name : {"processor_config.json", "chat_template.jinja", "chat_template.json"})
    fs::remove(folder / name);
  const std::int64_t rows = base.model.decoder.vocab_size, image = base.model.image_token_id;
  const bool behind = image > 0 && base.model.decoder.model_type != "qwen2";  // llava-hf's rows for <image>, <pad>
  writing.vocab_size = behind ? image : rows;
  const fs::path tower = folder / "vision_tower";
  fs::create_directories(tower);
  write_tower(tower, base, writing);
  TowerConfig shown = *base.model.tower;
  shown.num_hidden_layers += blocks_to_delete(shown);
  write_file_atomic(tower / "config.json", vision_config_json(shown).dump(2) + "\n");
  fs::rename(folder / "preprocessor_config.json", tower / "preprocessor_config.json");
  writing.with_tower = false;
  std::erase_if(writing.changed, [](const std::string& name) { return name.starts_with("vision_tower."); });
  write_weights(folder, base, writing);
  Json config = original_llava_config(
      base, writing.vocab_size, fs::absolute(final_folder / "vision_tower").lexically_normal().string());
  config["torch_dtype"] = written_dtype(base, writing);
  write_file_atomic(folder / "config.json", config.dump(2) + "\n");
}

/// A quick look at the base an adapter was trained on, where it says so.
void check_base(const CheckpointInfo& info) {
  for (const AdapterFiles& adapter : info.adapters) {
    const std::string trained_on = fingerprint_of_adapter(adapter);
    if (!trained_on.empty() && trained_on != base_fingerprint(info))
      log_warning("convert", "{} was trained on other weights than {}: the merged model may be wrong",
                  adapter.folder.string(), info.folder.string());
  }
}

/// All adapters' pairs and whole modules, kept until their tensor is written.
struct Merges {
  std::vector<AdapterTensors> adapters;
  at::Tensor apply(const std::string& canonical, const at::Tensor& stored) const {
    at::Tensor tensor = stored;
    for (const AdapterTensors& adapter : adapters) {
      if (const auto whole = adapter.whole.find(canonical); whole != adapter.whole.end()) tensor = whole->second;
      constexpr std::string_view kEnd = ".weight";
      if (!canonical.ends_with(kEnd)) continue;
      const auto layer = adapter.layers.find(canonical.substr(0, canonical.size() - kEnd.size()));
      if (layer != adapter.layers.end()) tensor = merged_weight(layer->second, tensor);
    }
    return tensor;
  }
};

Merges open_merges(const CheckpointInfo& info, std::set<std::string>& changed) {
  std::map<std::string, std::vector<std::int64_t>> known;
  OpenedWeights opened = open_weights(info, &weight_specs);
  for (const WeightSpec& spec : weight_specs(opened.config)) known[spec.name] = spec.shape;
  Merges merges;
  for (const AdapterFiles& adapter : info.adapters) {
    merges.adapters.push_back(read_adapter_tensors(adapter, known));
    const AdapterTensors& read = merges.adapters.back();
    for (const auto& [module, layer] : read.layers) changed.insert(module + ".weight");
    for (const auto& [name, tensor] : read.whole) changed.insert(name);
    log_info("convert", "{}: {} layers and {} whole tensors are merged", adapter.folder.string(), read.layers.size(),
             read.whole.size());
  }
  return merges;
}

}  // namespace

void write_folder_atomic(const fs::path& out, bool replace, const std::function<void(const fs::path&)>& write) {
  if (!replace && fs::exists(out))
    throw Error(ErrorKind::kUsage, fmt::format("{} exists already", out.string()), "choose another --out");
  const fs::path building = out.string() + ".tmp";
  try {
    fs::remove_all(building);
    fs::create_directories(building);
    write(building);
    if (replace) fs::remove_all(out);
    fs::rename(building, out);
  } catch (const fs::filesystem_error& e) {
    fail(ErrorKind::kResource, "cannot write {}: {}", out.string(), e.what());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(building, ignored);
    throw;
  }
}

void write_model(const fs::path& folder, const fs::path& final_folder, const CheckpointInfo& base,
                 ModelWriting writing) {
  if (stands_in(base, writing.target)) {
    writing.target = TargetLayout::kSame;
    bool separate = false;
    for (const WeightSource& source : base.weights) separate |= source.part == WeightSource::Part::kVisionTower;
    const bool tuned = std::any_of(writing.changed.begin(), writing.changed.end(),
                                   [](const auto& name) { return name.starts_with("vision_tower."); });
    writing.with_tower = tuned || !separate;  // an unchanged tower stays in its own folder, which config.json names
    write_same(folder, base, writing);
  } else if (writing.target == TargetLayout::kHf) {
    write_hf(folder, base, writing);
  } else {
    write_original(folder, final_folder, base, writing);
  }
}

void convert_checkpoint(const ConvertOptions& options) {
  CheckpointInfo info = options.adapter
                            ? read_checkpoint(*options.adapter, options.in)
                            : read_checkpoint(options.in, ReadOptions{options.base, {}, false});
  if (options.adapter && info.layout == Layout::kNano)
    fail(ErrorKind::kUnsupported, "{}: give a folder of parts as --in, with the adapter in it", options.in.string());
  if (info.layout == Layout::kHfVision)
    fail(ErrorKind::kUnsupported, "{}: a vision tower alone cannot be converted", options.in.string());
  const bool parts = info.layout == Layout::kNano || info.layout == Layout::kGguf;
  if (parts && options.target == TargetLayout::kSame)
    throw Error(ErrorKind::kUsage, fmt::format("{}: its own layout is {}", options.in.string(), to_string(info.layout)),
                "say which one is wanted with --to hf or --to llava");
  check_base(info);
  ModelWriting writing;
  writing.target = options.target;
  writing.dtype = options.dtype;
  writing.max_shard_bytes = options.max_shard_bytes;
  const Merges merges = open_merges(info, writing.changed);
  writing.change = [&](const std::string& canonical, const std::function<at::Tensor()>& stored) {
    return merges.apply(canonical, stored());
  };
  if (parts && !writing.dtype) writing.dtype = c10::ScalarType::Float;
  write_folder_atomic(options.out, false,
                      [&](const fs::path& building) { write_model(building, options.out, info, writing); });
}

}  // namespace llava
