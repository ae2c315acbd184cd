#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace llava {

/// One number over the steps; NaN where a step does not have it.
struct Curve {
  std::string name;
  std::vector<double> values;
};

/// The lines of metrics.jsonl as columns. Long runs are thinned to buckets of steps: loss-like curves keep
/// the mean.
struct Curves {
  std::vector<std::int64_t> steps;
  std::vector<Curve> curves;
  const Curve* find(const std::string& name) const;
};

struct RunData {
  Curves train, validation;
  std::vector<Json> stages, bad_steps, bad_samples, samples;
  std::string config;
  std::int64_t steps = 0, tokens = 0, samples_seen = 0;
  double seconds = 0;
  bool finished = false;  ///< final/ is there
};

inline constexpr std::size_t kMaxCurvePoints = 3000;

/// Torn and foreign lines are left out. Error{kInput} without metrics.jsonl.
RunData read_run(const std::filesystem::path& run);

/// The curves as the page's script reads them: {"steps": […], "curves": {name: […]}}, six digits, null for
/// NaN.
std::string curves_json(const Curves& curves);

}  // namespace llava
