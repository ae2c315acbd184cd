#include "convert/peft_adapter.h"

#include <torch/torch.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "convert/target_names.h"
#include "loader/weight_names.h"
#include "loader/weight_source.h"
#include "model/build_model.h"
#include "tensor/convert.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFingerprint = "llava_base_fingerprint";
constexpr std::int64_t kSamples = 64;  // numbers of a tensor that its part of the fingerprint looks at

/// "language_model.layers.0.mlp.up_proj" of "….up_proj.weight".
std::string module_of(const std::string& parameter) { return parameter.substr(0, parameter.rfind('.')); }

std::string regex_escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '.') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

/// The numbers that most layers have stand for all, the others are listed by module.
struct ModuleNumbers {
  double common = 0;
  Json pattern = Json::object();
};
ModuleNumbers numbers_of(const std::map<std::string, double>& modules, double preferred) {
  ModuleNumbers numbers{preferred, Json::object()};
  const bool any = std::any_of(modules.begin(), modules.end(), [&](const auto& m) { return m.second == preferred; });
  if (!any && !modules.empty()) numbers.common = modules.begin()->second;
  for (const auto& [module, number] : modules)
    if (number != numbers.common) {
      const bool whole = number == static_cast<double>(static_cast<std::int64_t>(number));
      numbers.pattern[regex_escaped(module)] = whole ? Json(static_cast<std::int64_t>(number)) : Json(number);
    }
  return numbers;
}

/// Top modules of parameters that trained whole: the projector as one, others by themselves.
std::set<std::string> saved_modules(const std::set<std::string>& whole, Layout layout) {
  std::set<std::string> modules;
  for (const std::string& name : whole) {
    if (name.starts_with("mm_projector.")) {
      modules.insert(layout == Layout::kHfLlava ? "multi_modal_projector" : "mm_projector");
    } else {
      modules.insert(module_name(module_of(name), layout));
    }
  }
  return modules;
}

}  // namespace

void write_peft_adapter(const fs::path& folder, const CheckpointInfo& base, LlavaModel& model,
                        const LoraSettings& lora, const std::set<std::string>& whole, const std::string& base_name) {
  const std::string prefix = "base_model.model.";
  TensorWriter writer;
  std::map<std::string, double> ranks, alphas;
  std::set<std::string> targets;
  for (const Linear* linear : model.linears()) {
    if (!linear->has_lora()) continue;
    const std::string module = module_name(linear->name, base.layout);
    writer.add(prefix + module + ".lora_A.weight", linear->lora_a);
    writer.add(prefix + module + ".lora_B.weight", linear->lora_b);
    if (linear->lora_magnitude.defined())
      writer.add(prefix + module + ".lora_magnitude_vector", linear->lora_magnitude);
    ranks[module] = static_cast<double>(linear->lora_a.size(0));
    alphas[module] = linear->lora_alpha;
    targets.insert(module);
  }
  for (const NamedParameter& p : model.parameters())
    if (whole.contains(p.name)) writer.add(prefix + module_name(p.name, base.layout), p.tensor);
  writer.set_metadata({{"format", "pt"}, {kFingerprint, base_fingerprint(base)}});
  writer.write(folder / "adapter_model.safetensors");
  const ModuleNumbers rank = numbers_of(ranks, static_cast<double>(lora.r)), alpha = numbers_of(alphas, lora.lora_alpha);
  const std::set<std::string> saved = saved_modules(whole, base.layout);
  const Json config = {{"peft_type", "LORA"},
                       {"task_type", "CAUSAL_LM"},
                       {"base_model_name_or_path", base_name},
                       {"r", static_cast<std::int64_t>(rank.common)},
                       {"lora_alpha", alpha.common},
                       {"lora_dropout", lora.dropout},
                       {"target_modules", targets},
                       {"rank_pattern", rank.pattern},
                       {"alpha_pattern", alpha.pattern},
                       {"modules_to_save", saved.empty() ? Json() : Json(saved)},
                       {"bias", "none"},
                       {"use_rslora", lora.use_rslora},
                       {"use_dora", lora.use_dora},
                       {"fan_in_fan_out", false},
                       {"init_lora_weights", true},
                       {"inference_mode", true}};
  write_file_atomic(folder / "adapter_config.json", config.dump(2) + "\n");
}

std::string base_fingerprint(const CheckpointInfo& base) {
  const at::NoGradGuard no_grad;
  OpenedWeights opened = open_weights(base, &weight_specs);
  LoadOptions options;
  std::string facts;
  for (const WeightSpec& spec : weight_specs(opened.config)) {
    const bool counts = spec.name.starts_with("language_model.layers.") || spec.name.starts_with("vision_tower.");
    const WeightStore::Entry* entry = opened.store.find(spec.name);
    if (!counts || entry == nullptr || entry->view->shape != spec.shape || spec.shape.size() != 2) continue;
    // one row is enough, and cheap to convert whatever the dtype is
    std::vector<float> row(static_cast<std::size_t>(spec.shape[1]));
    to_float32_rows(*entry->view, 0, 1, row);
    facts += fmt::format("{}:{}x{}", spec.name, spec.shape[0], spec.shape[1]);
    const std::int64_t step = std::max<std::int64_t>(spec.shape[1] / kSamples, 1);
    for (std::int64_t i = 0; i < spec.shape[1]; i += step)
      facts += fmt::format(",{:04x}", c10::BFloat16(row[static_cast<std::size_t>(i)]).x);
    facts += ';';
  }
  return fmt::format("{:016x}", hash_bytes(std::as_bytes(std::span(facts))));
}

std::string fingerprint_of_adapter(const AdapterFiles& adapter) {
  for (const fs::path& path : adapter.files) {
    const auto file = open_tensor_file(path);
    const Json& metadata = file->metadata();
    if (metadata.is_object() && metadata.contains(kFingerprint) && metadata.at(kFingerprint).is_string())
      return metadata.at(kFingerprint).get<std::string>();
  }
  return {};
}

}  // namespace llava
