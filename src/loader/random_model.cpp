#include <torch/torch.h>

#include <cmath>

#include "loader/load_model.h"
#include "loader/memory.h"
#include "loader/weight_source.h"
#include "tensor/convert.h"

namespace llava {
namespace {

class RandomReader final : public WeightReader {
 public:
  RandomReader(std::uint64_t seed, bool tied, const LoadOptions& options)
      : seed_(seed), tied_(tied), options_(options) {}

  at::Tensor read(const std::string& name, const std::vector<std::int64_t>& shape) override {
    at::Tensor tensor = at::empty(shape, at::kFloat);
    auto generator = at::make_generator<at::CPUGeneratorImpl>(seed_of(name, seed_));
    const bool is_weight = name.ends_with("weight") || name.ends_with("lambda1");
    if (shape.size() == 1) {
      tensor.normal_(is_weight ? 1.0 : 0.0, 0.1, generator);
    } else if (name.ends_with("embed_tokens.weight")) {
      tensor.normal_(0.0, tied_ ? 0.25 : 1.0,
                     generator);  // smaller when tied, or each token would predict itself
    } else if (name.find("position_embedding") != std::string::npos) {
      tensor.normal_(0.0, 0.3, generator);
    } else {
      tensor.normal_(0.0, 1.0 / std::sqrt(static_cast<double>(tensor[0].numel())), generator);
    }
    return tensor.to(options_.device, options_.dtype);
  }

  std::optional<Nf4Matrix> read_packed(const std::string& name,
                                       const std::vector<std::int64_t>& shape) override {
    if (!is_packed(name, options_)) return std::nullopt;
    return quantise_nf4(read(name, shape), options_.quantization->bnb_4bit_use_double_quant);
  }
  std::optional<c10::ScalarType> packed_compute() const override {
    const std::string name = options_.quantization ? options_.quantization->bnb_4bit_compute_dtype : "";
    return name.empty() ? std::nullopt : std::optional(dtype_from_string(name));
  }

 private:
  std::uint64_t seed_;
  bool tied_;
  const LoadOptions& options_;
};

}  // namespace

std::unique_ptr<LlavaModel> random_model(const ModelConfig& config, std::uint64_t seed,
                                         const LoadOptions& options) {
  const c10::InferenceMode trainable_tensors(false);
  check_load_memory({.owned_bytes = bytes_of(weight_specs(config), options.dtype)}, options, "this model");
  RandomReader reader(seed, config.decoder.tie_word_embeddings, options);
  return build_model(config, reader, options.dtype, options.device);
}

}  // namespace llava
