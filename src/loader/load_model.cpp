#include "loader/load_model.h"

#include <torch/torch.h>

#include "base/error.h"
#include "loader/weight_names.h"
#include "loader/weight_source.h"

namespace llava {
namespace {

std::vector<WeightSpec> tower_specs_of(const ModelConfig& config) {
  if (!config.tower) fail(ErrorKind::kInput, "the checkpoint has no vision tower");
  return tower_specs(*config.tower);
}

/// Finds every missing and misshaped tensor before any is converted.
void check_fit(OpenedWeights& weights, const std::vector<WeightSpec>& specs, const LoadOptions& options) {
  for (const WeightSpec& spec : specs) {
    const WeightStore::Entry* entry = weights.store.find(spec.name);
    if (entry == nullptr && options.new_connector_seed && spec.name.starts_with("mm_projector.")) continue;
    if (entry == nullptr || entry->view->shape != spec.shape) {
      weights.store.take(spec.name, spec.shape, options.dtype);  // notes it; no memory is touched
    } else {
      weights.store.mark_taken(spec.name);
    }
  }
  weights.store.finish();
}

/// LibTorch's errors as ours: what fails while weights are read is memory or a device.
template <class Body>
auto load_guarded(const CheckpointInfo& checkpoint, Body&& body) {
  const c10::InferenceMode trainable_tensors(false);
  return with_context(checkpoint.folder.string(), [&] {
    try {
      return body();
    } catch (const c10::Error& e) {
      fail(ErrorKind::kResource, "LibTorch: {}", e.what_without_backtrace());
    }
  });
}

}  // namespace

std::uint64_t bytes_of(const std::vector<WeightSpec>& specs, c10::ScalarType dtype) {
  std::uint64_t bytes = 0;
  for (const WeightSpec& spec : specs)
    bytes += static_cast<std::uint64_t>(spec.num_elements()) * c10::elementSize(dtype);
  return bytes;
}

void check_load_memory(const MemoryNeed& need, const LoadOptions& options, std::string_view what) {
  const std::uint64_t limit = options.memory_limit_bytes;
  check_memory(need, limit != 0 ? MemoryStatus{limit, limit} : memory_status(), what);
}

std::unique_ptr<LlavaModel> load_model(const CheckpointInfo& checkpoint, const LoadOptions& options) {
  return load_guarded(checkpoint, [&] {
    OpenedWeights weights = open_weights(checkpoint, &weight_specs);
    const std::vector<WeightSpec> specs = weight_specs(weights.config);
    check_fit(weights, specs, options);
    check_load_memory(memory_need(weights, specs, options), options, "the model");
    StoreReader reader(weights, options);
    std::unique_ptr<LlavaModel> model = build_model(weights.config, reader, options.dtype, options.device);
    apply_adapters(*model, checkpoint, options);
    return model;
  });
}

std::set<std::string> mapped_weights(const CheckpointInfo& checkpoint, const LoadOptions& options) {
  return load_guarded(checkpoint, [&] {
    const OpenedWeights weights = open_weights(checkpoint, &weight_specs);
    std::set<std::string> names;
    for (const auto& [name, entry] : weights.store.entries())
      if (is_in_place(*entry.view, options.dtype) && options.device.is_cpu() &&
          !weights.delta_base.contains(name) && !is_packed(name, options))
        names.insert(name);
    return names;
  });
}

LoadedTower load_tower(const CheckpointInfo& checkpoint, const LoadOptions& options) {
  return load_guarded(checkpoint, [&] {
    OpenedWeights weights = open_weights(checkpoint, &tower_specs_of);
    const std::vector<WeightSpec> specs = tower_specs_of(weights.config);
    for (const auto& [name, entry] : weights.store.entries())
      if (!name.starts_with("vision_tower.")) weights.store.mark_taken(name);  // the rest of a whole model
    check_fit(weights, specs, options);
    check_load_memory(memory_need(weights, specs, options), options, "the vision tower");
    StoreReader reader(weights, options);
    Builder builder(reader);
    LoadedTower loaded;
    loaded.tower = make_tower(*weights.config.tower, builder, "vision_tower.");
    loaded.parameters = std::move(builder.parameters);
    return loaded;
  });
}

WeightReport report_weights(const CheckpointInfo& checkpoint) {
  const SpecsOf specs_of = checkpoint.layout == Layout::kHfVision ? &tower_specs_of : &weight_specs;
  OpenedWeights weights = open_weights(checkpoint, specs_of);
  WeightReport report;
  for (const auto& [canonical, entry] : weights.store.entries())
    report.rows.push_back({entry.name, canonical, entry.file->path().filename().string(),
                           to_string(entry.view->dtype), entry.view->shape, entry.view->bytes.size()});
  for (const WeightSpec& spec : specs_of(weights.config)) {
    const WeightStore::Entry* entry = weights.store.find(spec.name);
    if (entry == nullptr || entry->view->shape != spec.shape) {
      weights.store.take(spec.name, spec.shape, c10::kFloat);
    } else {
      weights.store.mark_taken(spec.name);
    }
  }
  WeightStore::Report found = weights.store.report();
  report.missing = std::move(found.missing);
  report.unexpected = std::move(found.unexpected);
  report.misshaped = std::move(found.misshaped);
  return report;
}

}  // namespace llava
