#include "convert/side_files.h"

#include <set>

#include "base/error.h"
#include "base/fields.h"
#include "base/files.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

/// USER and ASSISTANT behind the system's sentence, answers end in the end token: what the original code's
/// vicuna_v1 writes.
constexpr const char* kVicunaTemplate =
    "{%- set ns = namespace(system='A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions.') -%}\n"
    "{%- for message in messages -%}\n"
    "{%- if message['role'] == 'system' -%}{%- set ns.system = message['content'] if message['content'] is string "
    "else message['content'][0]['text'] -%}{%- endif -%}\n"
    "{%- endfor -%}\n"
    "{{- ns.system -}}\n"
    "{%- for message in messages if message['role'] != 'system' -%}\n"
    "{%- if message['role'] == 'user' -%}{{- ' USER: ' -}}{%- else -%}{{- ' ASSISTANT: ' -}}{%- endif -%}\n"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}\n"
    "{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}\n"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}\n"
    "{%- endif -%}\n"
    "{%- if message['role'] != 'user' -%}{{- eos_token -}}{%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- ' ASSISTANT:' -}}{%- endif -%}\n";

OrderedJson read_ordered(const fs::path& path) { return parse_ordered_json(read_file(path), path.string()); }

OrderedJson token_entry(const std::string& text) {
  return {{"content", text},  {"lstrip", false},      {"normalized", false},
          {"rstrip", false},  {"single_word", false}, {"special", true}};
}

}  // namespace

void copy_side_files(const fs::path& target, const CheckpointInfo& base) {
  std::vector<fs::path> folders;
  if (fs::is_directory(base.folder)) folders.push_back(base.folder);
  for (const WeightSource& source : base.weights)
    if (source.part != WeightSource::Part::kVisionTower) folders.push_back(source.path.parent_path());
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

void add_special_token(const fs::path& folder, const std::string& text, std::int64_t id) {
  if (fs::is_regular_file(folder / "tokenizer.json")) {
    OrderedJson json = read_ordered(folder / "tokenizer.json");
    OrderedJson entry = token_entry(text);
    entry["id"] = id;
    json["added_tokens"].push_back(entry);
    write_file_atomic(folder / "tokenizer.json", json.dump(2) + "\n");
  }
  if (fs::is_regular_file(folder / "tokenizer_config.json")) {
    OrderedJson json = read_ordered(folder / "tokenizer_config.json");
    json["added_tokens_decoder"][std::to_string(id)] = token_entry(text);
    write_file_atomic(folder / "tokenizer_config.json", json.dump(2) + "\n");
  }
  OrderedJson added = OrderedJson::object();
  if (fs::is_regular_file(folder / "added_tokens.json")) added = read_ordered(folder / "added_tokens.json");
  added[text] = id;
  write_file_atomic(folder / "added_tokens.json", added.dump(2) + "\n");
}

void write_hf_processor(const fs::path& folder, const CheckpointInfo& base) {
  const ImagePolicy policy = base.image_policy.value_or(ImagePolicy{});
  const TowerConfig& tower = *base.model.tower;
  const bool pads = policy.aspect_ratio == AspectRatio::kPad, clip = tower.kind == TowerKind::kClip;
  Json image = {{"image_processor_type", pads ? "LlavaImageProcessor" : clip ? "CLIPImageProcessor" : "SiglipImageProcessor"},
                {"do_convert_rgb", true},
                {"do_resize", true},
                {"resample", policy.resample == ResampleFilter::kBicubic ? 3 : 2},
                {"do_rescale", policy.do_rescale},
                {"rescale_factor", policy.rescale_factor},
                {"do_normalize", policy.do_normalize},
                {"image_mean", policy.mean},
                {"image_std", policy.std}};
  image["size"] = policy.resize == ResizeMode::kShortestEdge
                      ? Json{{"shortest_edge", policy.resize_height}}
                      : Json{{"height", policy.resize_height}, {"width", policy.resize_width}};
  if (clip || pads) {
    image["do_center_crop"] = policy.center_crop;
    image["crop_size"] = {{"height", policy.crop_height}, {"width", policy.crop_width}};
  }
  if (pads) image["do_pad"] = true;
  write_file_atomic(folder / "preprocessor_config.json", image.dump(2) + "\n");
  const bool full = tower.select_feature == SelectFeature::kClsPatch || !tower.has_cls();
  const Json processor = {{"processor_class", "LlavaProcessor"},
                          {"image_token", "<image>"},
                          {"patch_size", tower.patch_size},
                          {"num_additional_image_tokens", tower.has_cls() ? 1 : 0},
                          {"vision_feature_select_strategy", full ? "full" : "default"}};
  write_file_atomic(folder / "processor_config.json", processor.dump(2) + "\n");
}

bool write_chat_template(const fs::path& folder, const CheckpointInfo& base) {
  if (fs::exists(folder / "chat_template.jinja")) return true;
  if (!base.chat_format) return false;
  const std::string& name = base.chat_format->name();
  if (name != "vicuna_v1" && name != "v1" && name != "llava_v1") return false;
  write_file_atomic(folder / "chat_template.jinja", kVicunaTemplate);
  return true;
}

}  // namespace llava
