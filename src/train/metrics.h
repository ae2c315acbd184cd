#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "base/json.h"

namespace llava {

/// One line of metrics.jsonl.
struct StepMetrics {
  std::int64_t step = 0;  ///< from 0, over all stages
  std::string stage;
  double loss = 0, grad_norm = 0, lr = 0;
  std::int64_t tokens = 0, supervised_tokens = 0, images = 0;
  double step_seconds = 0, data_wait_seconds = 0;
  std::int64_t peak_memory_bytes = 0;
  double mfu = 0;  ///< model FLOPs of the trained parts / the matmul rate measured at the start
  std::map<std::string, double> extra;  ///< an objective's own numbers, "rewards/margins"
};

/// Appends a line a step. Opening with `first_step` drops lines of that step and later ones, written after
/// the last checkpoint by a run that was cut off.
class MetricsWriter {
 public:
  MetricsWriter(const std::filesystem::path& path, std::int64_t first_step);
  void write(const StepMetrics& metrics);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

/// Highest resident memory of this process so far.
std::int64_t peak_memory_bytes();

}  // namespace llava
