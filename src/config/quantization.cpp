#include "config/quantization.h"

#include <algorithm>

#include "base/error.h"

namespace llava {

bool QuantizationSettings::packs(const std::string& module) const {
  if (!load_in_4bit) return false;
  const std::string dotted = "." + module + ".";
  return std::none_of(skip_modules.begin(), skip_modules.end(), [&](const std::string& skipped) {
    return dotted.find("." + skipped + ".") != std::string::npos;
  });
}

void check_quantization(const QuantizationSettings& q, const std::string& path) {
  if (q.bnb_4bit_quant_type != "nf4")
    fail(ErrorKind::kInput, "{}.bnb_4bit_quant_type: \"{}\" is not there, only nf4", path,
         q.bnb_4bit_quant_type);
  const std::string& dtype = q.bnb_4bit_compute_dtype;
  if (!dtype.empty() && dtype != "float32" && dtype != "bfloat16" && dtype != "float16")
    fail(ErrorKind::kInput, "{}.bnb_4bit_compute_dtype: \"{}\" is not float32, bfloat16 or float16", path,
         dtype);
  for (const std::string& module : q.skip_modules)
    if (module.empty()) fail(ErrorKind::kInput, "{}.skip_modules: a name is empty", path);
}

}  // namespace llava
