#pragma once
#include <string>
#include <vector>

/// Keys of `quantization`, named as in transformers' BitsAndBytesConfig.
namespace llava {

struct QuantizationSettings {
  bool load_in_4bit = false;
  std::string bnb_4bit_quant_type = "nf4";
  bool bnb_4bit_use_double_quant = false;
  std::string bnb_4bit_compute_dtype;  ///< of the products; empty: the run's dtype
  /// Modules left as they are: whole components of canonical names, with dots between.
  std::vector<std::string> skip_modules = {"lm_head", "vision_tower", "mm_projector"};
  bool operator==(const QuantizationSettings&) const = default;

  bool packs(const std::string& module) const;  ///< whether the linear layer of that name is packed
};

template <class V>
void visit_fields(V& v, QuantizationSettings& c) {
  v("load_in_4bit", c.load_in_4bit), v("bnb_4bit_quant_type", c.bnb_4bit_quant_type);
  v("bnb_4bit_use_double_quant", c.bnb_4bit_use_double_quant);
  v("bnb_4bit_compute_dtype", c.bnb_4bit_compute_dtype), v("skip_modules", c.skip_modules);
}

/// Error{kInput} naming the key for values that cannot work.
void check_quantization(const QuantizationSettings& quantization, const std::string& path);

}  // namespace llava
