#include "infer/model_bundle.h"

#include <ATen/Context.h>
#include <unistd.h>

#include "base/error.h"
#include "loader/load_model.h"
#include "recipe/recipe.h"

namespace llava {

namespace {

constexpr std::string_view kRandomPrefix = "random:";

bool is_random(const OpenOptions& options) { return options.model.starts_with(kRandomPrefix); }

double physical_memory() {
  return static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGE_SIZE));
}

c10::ScalarType choose_dtype(const OpenOptions& options, const CheckpointInfo& checkpoint,
                             const c10::Device& device) {
  if (options.dtype != "auto") return parse_dtype(options.dtype);
  if (!device.is_cpu())
    return parse_dtype(checkpoint.model.torch_dtype == "float32" ? "float32" : "bfloat16");
  const double needed = 4.0 * static_cast<double>(count_parameters(checkpoint.model).total());
  return 2 * needed < physical_memory() ? c10::ScalarType::Float
                                        : parse_dtype(checkpoint.model.torch_dtype);
}

CheckpointInfo random_checkpoint(const std::string& name) {
  const Recipe& recipe = find_recipe(name);
  CheckpointInfo info;
  info.folder = std::string(kRandomPrefix) + name;
  info.layout = recipe.kind == RecipeKind::kLlava  ? Layout::kHfLlava
                : recipe.kind == RecipeKind::kText ? Layout::kHfText
                                                   : Layout::kHfVision;
  info.recipe = recipe.name;
  info.model = recipe.model;
  info.image_policy = recipe.image_policy;
  if (recipe.kind == RecipeKind::kLlava) info.model.image_token_id = info.model.decoder.vocab_size - 1;
  info.config = info.generation_config = Json::object();
  return info;
}

}  // namespace

c10::ScalarType parse_dtype(const std::string& name) {
  if (name == "float32") return c10::ScalarType::Float;
  if (name == "bfloat16") return c10::ScalarType::BFloat16;
  if (name == "float16") return c10::ScalarType::Half;
  fail(ErrorKind::kUsage, "dtype \"{}\" is not one of float32, bfloat16, float16", name);
}

c10::Device parse_device(const std::string& name) {
  if (name == "auto") return at::hasCUDA() ? c10::Device(c10::kCUDA, 0) : c10::Device(c10::kCPU);
  if (name == "cpu") return c10::Device(c10::kCPU);
  if (name == "cuda" ||
      (name.starts_with("cuda:") && name.size() == 6 && name[5] >= '0' && name[5] <= '9')) {
    if (!at::hasCUDA()) fail(ErrorKind::kInput, "device \"{}\": no CUDA device is usable here", name);
    return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(name == "cuda" ? 0 : name[5] - '0'));
  }
  fail(ErrorKind::kUsage, "device \"{}\" is not one of auto, cpu, cuda, cuda:N", name);
}

CheckpointInfo open_checkpoint(const OpenOptions& options) {
  CheckpointInfo info;
  if (is_random(options)) {
    info = random_checkpoint(options.model.substr(kRandomPrefix.size()));
  } else {
    ReadOptions read;
    if (options.base) read.base = find_model(*options.base);
    if (options.vision_tower) read.vision_tower = find_model(*options.vision_tower);
    read.delta = options.delta;
    info = read_checkpoint(find_model(options.model), read);
  }
  if (!options.chat_format.empty()) info.chat_format = find_chat_format(options.chat_format);
  if (info.image_policy) info.image_policy->limits = options.limits.image;
  return info;
}

ModelBundle load_bundle(CheckpointInfo checkpoint, const OpenOptions& options) {
  ModelBundle bundle;
  bundle.checkpoint = std::move(checkpoint);
  LoadOptions load;
  load.device = parse_device(options.device);
  load.dtype = choose_dtype(options, bundle.checkpoint, load.device);
  bundle.model = is_random(options) ? random_model(bundle.checkpoint.model, options.seed, load)
                                    : load_model(bundle.checkpoint, load);
  return bundle;
}

ModelBundle open_model(const OpenOptions& options) {
  return load_bundle(open_checkpoint(options), options);
}

}  // namespace llava
