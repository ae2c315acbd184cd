#include <algorithm>
#include <charconv>
#include <string>

#include "base/error.h"
#include "checkpoint/parts.h"
#include "vision/media_plan.h"

namespace llava {

namespace fs = std::filesystem;

std::optional<ImagePolicy> read_image_policy(const fs::path& folder) {
  const fs::path own = folder / "preprocessor_config.json";
  if (fs::is_regular_file(own)) {
    const Json json = read_json_file(own);
    return with_context(own.string(), [&] { return image_policy_from_json(json); });
  }
  const fs::path processor = folder / "processor_config.json";
  if (!fs::is_regular_file(processor)) return std::nullopt;
  const Json json = read_json_file(processor);
  if (!json.is_object() || !json.contains("image_processor") || !json.at("image_processor").is_object())
    return std::nullopt;
  return with_context(processor.string(),
                      [&] { return image_policy_from_json(json.at("image_processor")); });
}

TowerFolder read_tower_folder(const fs::path& folder) {
  const fs::path config_path = folder / "config.json";
  TowerFolder tower;
  tower.folder = folder;
  tower.config = tower_config_from_json(read_json_file(config_path), config_path.string());
  const auto policy = read_image_policy(folder);
  tower.policy = policy ? *policy : default_image_policy(tower.config);
  match_input_size(tower.config, tower.policy, folder.string());
  return tower;
}

fs::path resolve_part(const std::string& name, const std::vector<fs::path>& roots, std::string_view what,
                      const std::string& hint) {
  if (name.empty()) fail(ErrorKind::kFormat, "{}: an empty path", what);
  std::vector<fs::path> candidates;
  const fs::path path(name);
  const fs::path last = path.filename();
  if (path.is_absolute()) candidates.push_back(path);
  for (const fs::path& root : roots) {
    const fs::path parent = fs::absolute(root).lexically_normal().parent_path();
    for (const fs::path& folder : {root, parent}) {
      if (path.is_relative()) candidates.push_back(folder / path);
      if (!last.empty() && last != path) candidates.push_back(folder / last);
    }
  }
  for (const fs::path& folder : model_folders())
    if (!last.empty()) candidates.push_back(folder / last);
  std::string looked;
  std::error_code error;
  for (const fs::path& candidate : candidates) {
    if (fs::exists(candidate, error)) return candidate.lexically_normal();
    looked += (looked.empty() ? "" : ", ") + candidate.lexically_normal().string();
  }
  throw Error(ErrorKind::kInput, fmt::format("{}: \"{}\" was not found (looked at {})", what, name, looked),
              hint);
}

std::int64_t count_embedded_layers(const CheckpointInfo& info) {
  constexpr std::string_view kMarker = "vision_tower.vision_tower.vision_model.encoder.layers.";
  std::int64_t layers = 0;
  for (const WeightSource& source : info.weights) {
    if (!source.file || source.part == WeightSource::Part::kVisionTower) continue;
    for (const TensorView& tensor : source.file->tensors()) {
      const std::size_t at = tensor.name.find(kMarker);
      if (at == std::string::npos) continue;
      const char* begin = tensor.name.data() + at + kMarker.size();
      std::int64_t index = 0;
      const auto [rest, error] = std::from_chars(begin, tensor.name.data() + tensor.name.size(), index);
      if (error == std::errc() && index >= 0 && index < 1024) layers = std::max(layers, index + 1);
    }
  }
  return layers;
}

TowerConfig tower_config_from_tensors(const CheckpointInfo& info, std::string_view what) {
  const TensorView* patch = find_suffix(info, "embeddings.patch_embedding.weight");
  const TensorView* positions = find_suffix(info, "embeddings.position_embedding.weight");
  const TensorView* fc1 = find_suffix(info, "vision_model.encoder.layers.0.mlp.fc1.weight");
  if (patch == nullptr || patch->shape.size() != 4 || positions == nullptr ||
      positions->shape.size() != 2 || fc1 == nullptr || fc1->shape.size() != 2)
    fail(ErrorKind::kFormat, "{}: the vision tower inside the checkpoint is incomplete", what);
  TowerConfig tower;
  const bool clip = find_suffix(info, "vision_model.embeddings.class_embedding") != nullptr;
  tower.kind = clip ? TowerKind::kClip : TowerKind::kSiglip;
  tower.hidden_size = patch->shape[0];
  tower.num_channels = patch->shape[1];
  tower.patch_size = patch->shape[2];
  tower.intermediate_size = fc1->shape[0];
  tower.num_hidden_layers = count_embedded_layers(info);
  tower.hidden_act = clip ? Activation::kQuickGelu : Activation::kGeluTanh;
  tower.layer_norm_eps = clip ? 1e-5 : 1e-6;
  // Heads do not show in the shapes: published CLIP towers have heads of 64 (ViT-H: 80), SigLIP so400m
  // of 72.
  const std::int64_t head = tower.hidden_size == 1152 ? 72 : tower.hidden_size == 1280 ? 80 : 64;
  std::int64_t grid = 1;
  while (grid * grid < positions->shape[0] - (clip ? 1 : 0) && grid < 1024) ++grid;
  if (tower.hidden_size % head != 0 || grid * grid != positions->shape[0] - (clip ? 1 : 0))
    throw Error(
        ErrorKind::kUnsupported,
        fmt::format("{}: the number of heads of the vision tower inside cannot be told from its shapes",
                    what),
        "give the tower's folder (with its config.json) as --vision-tower");
  tower.num_attention_heads = tower.hidden_size / head;
  tower.image_size = tower.input_size = grid * tower.patch_size;
  return tower;
}

}  // namespace llava
