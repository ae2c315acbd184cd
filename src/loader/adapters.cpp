#include <torch/torch.h>

#include <cmath>
#include <map>
#include <regex>

#include "base/error.h"
#include "base/log.h"
#include "formats/tensor_file.h"
#include "loader/adapter.h"
#include "loader/weight_names.h"
#include "loader/weight_source.h"
#include "tensor/convert.h"

namespace llava {
namespace {

constexpr std::string_view kSuffixA = ".lora_A.weight";

using Names = std::set<std::string, std::less<>>;

/// PEFT also adapts tower blocks above the selected layer, which nothing reads: those are left out.
WeightStore open_adapter(const AdapterFiles& adapter, const Names& parameters) {
  WeightStore store;
  for (const auto& path : adapter.files)
    store.add(std::shared_ptr<const TensorFile>(open_tensor_file(path)),
              [&](const std::string& name) -> std::optional<std::string> {
                std::string canonical = canonical_adapter_name(name);
                if (is_legally_unused(canonical, parameters)) return std::nullopt;
                return canonical;
              });
  return store;
}

/// PEFT matches rank_pattern and alpha_pattern with a module's whole name in its own model, which is the
/// file's name.
double number_of(const std::vector<std::pair<std::string, double>>& patterns, const std::string& module,
                 double otherwise) {
  for (const auto& [pattern, number] : patterns) try {
      if (std::regex_match(module, std::regex("(.*\\.)?(" + pattern + ")"))) return number;
    } catch (const std::regex_error& e) {
      fail(ErrorKind::kFormat, "adapter_config.json: \"{}\" is not a regular expression: {}", pattern, e.what());
    }
  return otherwise;
}

/// The layers that the file has pairs for.
std::vector<LoraModule> modules_of(const AdapterFiles& adapter, const WeightStore& store) {
  constexpr std::string_view kPrefix = "base_model.model.";
  std::vector<LoraModule> modules;
  for (const auto& [name, entry] : store.entries()) {
    if (!name.ends_with(kSuffixA)) continue;
    std::string module = entry.name.substr(0, entry.name.find(".lora_"));
    if (module.starts_with(kPrefix)) module.erase(0, kPrefix.size());
    const double rank = number_of(adapter.rank_pattern, module, static_cast<double>(adapter.r));
    modules.push_back({name.substr(0, name.size() - kSuffixA.size()), static_cast<std::int64_t>(rank),
                       number_of(adapter.alpha_pattern, module, adapter.lora_alpha)});
  }
  return modules;
}

LoraConfig lora_config(const AdapterFiles& adapter, std::vector<LoraModule> modules) {
  LoraConfig config;
  config.r = adapter.r;
  config.lora_alpha = adapter.lora_alpha;
  config.use_rslora = adapter.use_rslora;
  config.use_dora = adapter.use_dora;
  config.modules = std::move(modules);
  return config;
}

bool is_adapter_part(const std::string& name) { return name.find(".lora_") != std::string::npos; }

/// Copies what the file holds into the model: pairs, magnitudes and whole modules (modules_to_save). Returns
/// how many tensors that were.
std::size_t copy_tensors(LlavaModel& model, WeightStore& store) {
  std::size_t count = 0;
  for (NamedParameter& p : model.parameters()) {
    const bool part = is_adapter_part(p.name);
    if (!part && !store.contains(p.name)) continue;
    if (!p.tensor.is_floating_point())
      fail(ErrorKind::kUnsupported, "the adapter replaces {}, which is packed in 4 bits", p.name);
    const at::Tensor saved = store.take(p.name, p.tensor.sizes(), part ? at::kFloat : p.tensor.scalar_type());
    if (!part) make_writable(p.tensor);
    p.tensor.copy_(saved);
    ++count;
  }
  return count;
}

std::size_t apply_adapter(LlavaModel& model, const AdapterFiles& adapter) {
  Names parameters;
  for (const NamedParameter& p : model.parameters()) parameters.insert(p.name);
  WeightStore store = open_adapter(adapter, parameters);
  std::set<std::string> known;
  for (const Linear* linear : model.linears()) known.insert(linear->name);
  std::vector<LoraModule> modules;
  for (LoraModule& module : modules_of(adapter, store))
    if (known.contains(module.name)) modules.push_back(std::move(module));
  if (modules.empty()) {
    store.finish();  // lists what the file holds instead
    fail(ErrorKind::kInput, "the adapter has no LoRA pair");
  }
  model.add_lora(lora_config(adapter, std::move(modules)));
  const std::size_t count = copy_tensors(model, store);
  store.finish();
  return count;
}

double scale_of(const AdapterFiles& adapter, const LoraModule& module) {
  const auto rank = static_cast<double>(module.r);
  return module.lora_alpha / (adapter.use_rslora ? std::sqrt(rank) : rank);
}

}  // namespace

AdapterTensors read_adapter_tensors(const AdapterFiles& adapter,
                                    const std::map<std::string, std::vector<std::int64_t>>& known) {
  const at::NoGradGuard no_grad;
  Names parameters;
  for (const auto& [name, shape] : known) parameters.insert(name);
  WeightStore store = open_adapter(adapter, parameters);
  AdapterTensors read;
  for (const LoraModule& module : modules_of(adapter, store)) {
    const auto base = known.find(module.name + ".weight");
    if (base == known.end() || base->second.size() != 2) continue;
    const std::int64_t out = base->second[0], in = base->second[1];
    Linear layer;
    layer.name = module.name;
    layer.lora_a = store.take(module.name + ".lora_A.weight", {module.r, in}, at::kFloat);
    layer.lora_b = store.take(module.name + ".lora_B.weight", {out, module.r}, at::kFloat);
    if (adapter.use_dora)
      layer.lora_magnitude = store.take(module.name + ".lora_magnitude_vector", {out}, at::kFloat);
    layer.lora_alpha = module.lora_alpha;
    layer.lora_scale = scale_of(adapter, module);
    read.layers.emplace(module.name, std::move(layer));
  }
  for (const auto& [name, shape] : known)
    if (store.contains(name)) read.whole.emplace(name, store.take(name, shape, at::kFloat));
  with_context(adapter.folder.string(), [&] {
    store.finish();
    if (read.layers.empty() && read.whole.empty()) fail(ErrorKind::kInput, "the adapter is empty");
  });
  return read;
}

void apply_adapters(LlavaModel& model, const CheckpointInfo& checkpoint, const LoadOptions& options) {
  const at::NoGradGuard no_grad;
  if (!options.merge_adapters && checkpoint.adapters.size() > 1)
    fail(ErrorKind::kUnsupported, "{} adapters: only one can stay unmerged", checkpoint.adapters.size());
  for (const AdapterFiles& adapter : checkpoint.adapters)
    with_context(adapter.folder.string(), [&] {
      const std::size_t count = apply_adapter(model, adapter);
      log_info("load", "{}: all {} tensors of the adapter are in the model", adapter.folder.string(), count);
      if (options.merge_adapters) model.merge_lora();
    });
}

}  // namespace llava
