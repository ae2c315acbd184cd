#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/fields.h"

/// Keys of a stage's `lora`, named as in PEFT's LoraConfig.
namespace llava {

/// kKaiming: A uniform in ±1/sqrt(in), as PEFT's `true`. kGaussian: A normal with deviation 1/r. B is zero.
enum class LoraInit { kKaiming, kGaussian };
template <>
struct EnumTable<LoraInit> {
  static constexpr std::pair<const char*, LoraInit> names[] = {{"kaiming", LoraInit::kKaiming},
                                                               {"gaussian", LoraInit::kGaussian}};
};

struct LoraSettings {
  std::int64_t r = 16;
  double lora_alpha = 32;
  double dropout = 0.0;
  std::string target =
      "(q|k|v|o|gate|up|down)_proj";  ///< regular expression searched in the decoder's module names
  std::string tower_target;           ///< likewise in the vision tower's; empty: no LoRA there
  bool use_rslora = false;
  bool use_dora = false;
  LoraInit init_lora_weights = LoraInit::kKaiming;
  bool autocast_adapter_dtype = true;  ///< float32 pairs above a 16-bit base; false: in the base's dtype
  PatternNumbers rank_pattern, alpha_pattern;  ///< ends of module names -> r, lora_alpha of those modules
  std::vector<std::string> modules_to_save;    ///< modules that train whole beside the pairs
  bool operator==(const LoraSettings&) const = default;
};

template <class V>
void visit_fields(V& v, LoraSettings& c) {
  v("r", c.r), v("lora_alpha", c.lora_alpha), v("dropout", c.dropout), v("target", c.target);
  v("tower_target", c.tower_target), v("use_rslora", c.use_rslora), v("use_dora", c.use_dora);
  v("init_lora_weights", c.init_lora_weights), v("autocast_adapter_dtype", c.autocast_adapter_dtype);
  v("rank_pattern", c.rank_pattern), v("alpha_pattern", c.alpha_pattern);
  v("modules_to_save", c.modules_to_save);
}

/// Error{kInput} naming the key for values that cannot work; `path` stands before keys.
void check_lora(const LoraSettings& lora, const std::string& path);

}  // namespace llava
