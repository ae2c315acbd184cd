#include "train/final_policy.h"

#include "base/error.h"
#include "base/files.h"
#include "vision/media_plan.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kLargestConfig = std::size_t{16} << 20;

/// The file of an llava-hf folder that holds the image processor, and its JSON.
struct ProcessorFile {
  fs::path path;
  OrderedJson json;
  bool nested = false;  ///< under "image_processor"
  OrderedJson& image() { return nested ? json["image_processor"] : json; }
};

std::optional<ProcessorFile> read_processor(const fs::path& folder) {
  for (const char* name : {"preprocessor_config.json", "processor_config.json"}) {
    const fs::path path = folder / name;
    if (!fs::is_regular_file(path)) continue;
    ProcessorFile file{path, parse_ordered_json(read_file(path, kLargestConfig), path.string())};
    file.nested = file.json.contains("image_processor");
    if (file.nested || std::string_view(name).starts_with("pre")) return file;
  }
  return std::nullopt;
}

void set_padding(OrderedJson& image, bool pads) {
  image["do_pad"] = pads;
  if (!pads) return;
  const std::string type = image.value("image_processor_type", "");
  image["image_processor_type"] =
      type.ends_with("Fast") ? "LlavaImageProcessorFast" : "LlavaImageProcessor";
}

bool says_it_in_config(const CheckpointInfo& base) {
  return base.layout == Layout::kOriginalLlava || base.layout == Layout::kNano;
}

}  // namespace

ImagePolicy stage_policy(const CheckpointInfo& checkpoint, const StageConfig& stage) {
  ImagePolicy policy = checkpoint.image_policy.value_or(ImagePolicy{});
  if (stage.image_aspect_ratio) policy.aspect_ratio = *stage.image_aspect_ratio;
  return policy;
}

void check_final_policy(const CheckpointInfo& base, const StageConfig& last_stage) {
  if (!last_stage.image_aspect_ratio || says_it_in_config(base)) return;
  const bool tiles = base.image_policy && base.image_policy->aspect_ratio == AspectRatio::kAnyRes;
  const ImagePolicy wanted = stage_policy(base, last_stage);
  if (base.image_policy && wanted == *base.image_policy) return;
  if (auto file = read_processor(base.folder); file && base.layout == Layout::kHfLlava && !tiles) {
    set_padding(file->image(), wanted.aspect_ratio == AspectRatio::kPad);
    const Json image = Json::parse(file->image().dump());
    const auto read = try_outcome([&] { return image_policy_from_json(image); });
    if (read && read.value() == wanted) return;
  }
  throw Error(
      ErrorKind::kUnsupported,
      fmt::format(
          "stage {}: image_aspect_ratio of the last stage cannot be said by a checkpoint of layout {}",
          last_stage.name, to_string(base.layout)),
      "leave it away in the last stage, or train a model of the original LLaVA layout");
}

void write_final_policy(const fs::path& folder, const CheckpointInfo& base, const StageConfig& last_stage) {
  if (!last_stage.image_aspect_ratio) return;
  const bool pads = *last_stage.image_aspect_ratio == AspectRatio::kPad;
  if (says_it_in_config(base)) {
    const fs::path path = folder / "config.json";
    OrderedJson config = parse_ordered_json(read_file(path, kLargestConfig), path.string());
    config["image_aspect_ratio"] = pads ? "pad" : "square";
    write_file_atomic(path, config.dump(2) + "\n");
    return;
  }
  auto file = read_processor(folder);
  if (!file) return;  // check_final_policy has seen that nothing changes
  set_padding(file->image(), pads);
  write_file_atomic(file->path, file->json.dump(2) + "\n");
}

}  // namespace llava
