#include "config/sampling_params.h"

#include "base/error.h"

namespace llava {

namespace {

void check(bool ok, const char* name, double value, const char* range) {
  if (!ok) fail(ErrorKind::kUsage, "{} = {} is not {}", name, value, range);
}

}  // namespace

void SamplingParams::validate() const {
  check(temperature >= 0 && temperature <= 100, "temperature", temperature, "in [0, 100] (0 is greedy)");
  check(top_p > 0 && top_p <= 1, "top_p", top_p, "in (0, 1]");
  check(top_k >= 0, "top_k", static_cast<double>(top_k), "0 (off) or more");
  check(min_p >= 0 && min_p <= 1, "min_p", min_p, "in [0, 1]");
  check(repetition_penalty > 0 && repetition_penalty <= 100, "repetition_penalty", repetition_penalty,
        "in (0, 100]");
  check(max_new_tokens >= 1, "max_new_tokens", static_cast<double>(max_new_tokens), "1 or more");
}

}  // namespace llava
