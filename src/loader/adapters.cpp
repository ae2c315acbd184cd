#include <torch/torch.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "formats/tensor_file.h"
#include "loader/weight_names.h"
#include "loader/weight_source.h"

namespace llava {
namespace {

constexpr std::string_view kSuffixA = ".lora_A.weight", kSuffixB = ".lora_B.weight";

WeightStore open_adapter(const AdapterFiles& adapter) {
  WeightStore store;
  for (const auto& path : adapter.files)
    store.add(
        std::shared_ptr<const TensorFile>(open_tensor_file(path)),
        [](const std::string& name) -> std::optional<std::string> { return canonical_adapter_name(name); });
  return store;
}

/// Modules that have a lora_A or lora_B in the adapter.
std::vector<std::string> modules_of(const WeightStore& store) {
  std::set<std::string> modules;
  for (const auto& [name, entry] : store.entries())
    for (const std::string_view suffix : {kSuffixA, kSuffixB})
      if (name.ends_with(suffix)) modules.insert(name.substr(0, name.size() - suffix.size()));
  return {modules.begin(), modules.end()};
}

LoraConfig lora_config(const AdapterFiles& adapter, std::vector<std::string> modules) {
  LoraConfig config;
  config.r = adapter.r;
  config.lora_alpha = adapter.lora_alpha;
  config.use_rslora = adapter.use_rslora;
  config.modules = std::move(modules);
  return config;
}

void apply_adapter(LlavaModel& model, const AdapterFiles& adapter) {
  WeightStore store = open_adapter(adapter);
  std::set<std::string> known;
  for (const NamedParameter& p : model.parameters())
    if (p.name.ends_with(".weight"))
      known.insert(p.name.substr(0, p.name.size() - std::string_view(".weight").size()));
  std::vector<std::string> modules;
  for (std::string& module : modules_of(store))
    if (known.contains(module)) modules.push_back(std::move(module));
  if (modules.empty()) {
    store.finish();  // lists what the file holds instead
    fail(ErrorKind::kInput, "the adapter has no LoRA pair");
  }
  model.add_lora(lora_config(adapter, modules));
  for (NamedParameter& p : model.parameters())
    if (p.name.ends_with(kSuffixA) || p.name.ends_with(kSuffixB))
      p.tensor.copy_(store.take(p.name, p.tensor.sizes(), at::kFloat));
  store.finish();
}

}  // namespace

void apply_adapters(LlavaModel& model, const CheckpointInfo& checkpoint, const LoadOptions& options) {
  const at::NoGradGuard no_grad;
  if (!options.merge_adapters && checkpoint.adapters.size() > 1)
    fail(ErrorKind::kUnsupported, "{} adapters: only one can stay unmerged", checkpoint.adapters.size());
  for (const AdapterFiles& adapter : checkpoint.adapters)
    with_context(adapter.folder.string(), [&] {
      apply_adapter(model, adapter);
      if (options.merge_adapters) model.merge_lora();
    });
}

}  // namespace llava
