#include "loader/weight_source.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "loader/weight_names.h"
#include "tensor/convert.h"
#include "tensor/release_pages.h"

namespace llava {
namespace {

using Wanted = std::set<std::string, std::less<>>;

Wanted names_of(const std::vector<WeightSpec>& specs) {
  Wanted names;
  for (const WeightSpec& spec : specs) names.insert(spec.name);
  return names;
}

bool is_gguf(const TensorFile& file) {
  return file.metadata().is_object() && file.metadata().contains("general.architecture");
}

std::shared_ptr<const TensorFile> opened(const WeightSource& source) {
  if (source.file) return source.file;
  return std::shared_ptr<const TensorFile>(open_tensor_file(source.path));
}

std::string canonical(const TensorFile& file, const std::string& name, WeightSource::Part part) {
  return is_gguf(file) ? canonical_gguf_name(name) : canonical_name(name, part);
}

/// What the tensors say about the config: vocabulary rows, and a head that is not stored is the embedding.
void apply_tensors_to_config(ModelConfig& config,
                             const std::vector<std::pair<std::string, const TensorView*>>& tensors) {
  bool has_head = false;
  for (const auto& [name, view] : tensors) {
    has_head = has_head || name == "lm_head.weight";
    if (name == "language_model.embed_tokens.weight" && view->shape.size() == 2)
      config.decoder.vocab_size = view->shape[0];
  }
  if (!has_head) config.decoder.tie_word_embeddings = true;
}

}  // namespace

OpenedWeights open_weights(const CheckpointInfo& checkpoint, SpecsOf specs_of) {
  OpenedWeights opened_weights;
  opened_weights.config = checkpoint.model;
  std::vector<std::pair<std::shared_ptr<const TensorFile>, WeightSource::Part>> files;
  std::vector<std::pair<std::string, const TensorView*>> tensors;
  for (const WeightSource& source : checkpoint.weights) {
    const auto& [file, part] = files.emplace_back(opened(source), source.part);
    for (const TensorView& view : file->tensors())
      tensors.emplace_back(canonical(*file, view.name, part), &view);
    if (is_gguf(*file) && file->metadata().at("general.architecture") == "llama")
      opened_weights.permuted.insert(file.get());
  }
  apply_tensors_to_config(opened_weights.config, tensors);
  const Wanted wanted = names_of(specs_of(opened_weights.config));
  const bool tied = opened_weights.config.decoder.tie_word_embeddings;
  for (const auto& [file, part] : files) {
    opened_weights.store.add(
        file, [&, &f = *file, p = part](const std::string& name) -> std::optional<std::string> {
          const std::string found = canonical(f, name, p);
          if (is_legally_unused(found, wanted) || (tied && found == "lm_head.weight")) return std::nullopt;
          return found;
        });
  }
  for (const WeightSource& source : checkpoint.delta_base) {
    const auto file = opened(source);
    opened_weights.delta_base.add(file, [&](const std::string& name) { return canonical(*file, name, source.part); });
  }
  return opened_weights;
}

bool is_packed(const std::string& name, const LoadOptions& options) {
  constexpr std::string_view kEnd = ".weight";
  return options.quantization && name.ends_with(kEnd) &&
         options.quantization->packs(name.substr(0, name.size() - kEnd.size()));
}

namespace {

/// Embeddings are matrices too, and never packed.
bool is_linear_name(const std::string& name) { return name.find("embed") == std::string::npos; }

}  // namespace

MemoryNeed memory_need(const OpenedWeights& weights, const std::vector<WeightSpec>& specs,
                       const LoadOptions& options) {
  MemoryNeed need;
  std::uint64_t largest = 0;  // a packed matrix is whole for a moment
  for (const WeightSpec& spec : specs) {
    if (spec.shape.size() == 2 && is_linear_name(spec.name) && is_packed(spec.name, options)) {
      const auto count = static_cast<std::uint64_t>(spec.num_elements());
      need.owned_bytes += count / 2 + count / 16;
      largest = std::max(largest, count * (4 + c10::elementSize(options.dtype)));
      continue;
    }
    const std::uint64_t bytes =
        static_cast<std::uint64_t>(spec.num_elements()) * c10::elementSize(options.dtype);
    const WeightStore::Entry* entry = weights.store.find(spec.name);
    const bool in_place =
        entry != nullptr && is_in_place(*entry->view, options.dtype) && options.device.is_cpu() &&
        !weights.delta_base.contains(spec.name);
    (in_place ? need.mapped_bytes : need.owned_bytes) += bytes;
  }
  need.owned_bytes += largest;
  if (!options.device.is_cpu()) need.owned_bytes = 0;  // the weights go to the device, tensor by tensor
  return need;
}

at::Tensor StoreReader::read(const std::string& name, const std::vector<std::int64_t>& shape) {
  if (options_.new_connector_seed && name.starts_with("mm_projector.") && !weights_.store.contains(name))
    return new_connector_tensor(name, shape, *options_.new_connector_seed)
        .to(options_.device, options_.dtype);
  if (weights_.delta_base.contains(name)) {
    const WeightStore::Entry* entry = weights_.store.find(name);
    LLAVA_ASSERT(entry != nullptr, "check_fit has found every tensor");
    const c10::ScalarType stored = scalar_type(entry->view->dtype);  // summed as the published script does
    return plus_base(name, weights_.store.take(name, shape, stored)).to(options_.device, options_.dtype);
  }
  const at::Tensor tensor = weights_.store.take(name, shape, options_.dtype);
  return unpermute(name, tensor).to(options_.device);
}

std::optional<Nf4Matrix> StoreReader::read_packed(const std::string& name,
                                                  const std::vector<std::int64_t>& shape) {
  if (!is_packed(name, options_)) return std::nullopt;
  Nf4Matrix packed = quantise_nf4(read(name, shape), options_.quantization->bnb_4bit_use_double_quant);
  if (const WeightStore::Entry* entry = weights_.store.find(name)) release_pages(*entry->view);
  return packed;
}

std::optional<c10::ScalarType> StoreReader::packed_compute() const {
  const std::string name = options_.quantization ? options_.quantization->bnb_4bit_compute_dtype : "";
  return name.empty() ? std::nullopt : std::optional(dtype_from_string(name));
}

at::Tensor StoreReader::plus_base(const std::string& name, const at::Tensor& difference) {
  const WeightStore::Entry* entry = weights_.delta_base.find(name);
  const std::vector<std::int64_t>& shape = entry->view->shape;
  const bool rows_added = difference.dim() == 2 && shape.size() == 2 && shape[1] == difference.size(1) &&
                          shape[0] <= difference.size(0);  // of the embedding and the head, for new tokens
  if (difference.sizes() != at::IntArrayRef(shape) && !rows_added)
    fail(ErrorKind::kInput, "{}: the base's tensor of shape {} is not what this is a difference from", name,
         fmt::join(shape, "x"));
  at::Tensor sum = difference.clone();
  sum.narrow(0, 0, shape[0]).add_(weights_.delta_base.take(name, shape, difference.scalar_type()));
  return sum;
}

at::Tensor StoreReader::unpermute(const std::string& name, const at::Tensor& tensor) const {
  const WeightStore::Entry* entry = weights_.store.find(name);
  if (entry == nullptr || !weights_.permuted.contains(entry->file.get())) return tensor;
  const DecoderConfig& c = weights_.config.decoder;
  if (name.find(".self_attn.q_proj.") != std::string::npos)
    return undo_llama_cpp_permutation(tensor, c.num_attention_heads);
  if (name.find(".self_attn.k_proj.") != std::string::npos)
    return undo_llama_cpp_permutation(tensor, c.num_key_value_heads);
  return tensor;
}

at::Tensor undo_llama_cpp_permutation(const at::Tensor& weight, std::int64_t heads) {
  const std::int64_t half = weight.size(0) / heads / 2;
  return weight.view({heads, half, 2, -1}).transpose(1, 2).reshape(weight.sizes());
}

std::uint64_t seed_of(std::string_view name, std::uint64_t seed) {
  std::uint64_t hash = 0xcbf29ce484222325ULL ^ seed;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

at::Tensor new_connector_tensor(const std::string& name, const std::vector<std::int64_t>& shape,
                                std::uint64_t seed) {
  const bool is_weight = name.ends_with(".weight");
  if (name.starts_with("mm_projector.norm.")) return at::full(shape, is_weight ? 1.0 : 0.0, at::kFloat);
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed_of(name, seed));
  // biases are drawn like their weights' rows; all widths in a connector after the first layer are the same
  const auto fan_in = static_cast<double>(shape.back());
  const double bound = 1.0 / std::sqrt(fan_in);
  return at::empty(shape, at::kFloat).uniform_(-bound, bound, generator);
}

}  // namespace llava
