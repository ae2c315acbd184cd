#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "report/event_file.h"
#include "report/json_lines.h"

namespace llava {

/// One line of metrics.jsonl.
struct StepMetrics {
  std::int64_t step = 0;  ///< from 0, over all stages
  std::string stage;
  double loss = 0;
  double grad_norm = 0;         ///< before clipping
  double clip_coefficient = 1;  ///< what the gradients were multiplied with
  double lr = 0;                ///< the highest
  std::vector<std::pair<std::string, double>>
      group_lr;  ///< by the pattern of the config's `lr`; several only
  std::int64_t samples = 0, tokens = 0, supervised_tokens = 0, images = 0;
  std::int64_t views = 0;  ///< what the tower sees of the images: one each, or their tiles
  double step_seconds = 0, data_wait_seconds = 0;
  double save_seconds = 0;  ///< training stood still for a checkpoint before this step
  std::int64_t peak_memory_bytes = 0;
  double attended_pairs = 0;            ///< sum of the squares of the samples' tokens
  double model_flops = 0;               ///< step_flops()
  double mfu = 0;                       ///< model_flops a second / the matmul rate measured at the start
  double hfu = 0;                       ///< the same with what is computed twice (gradient checkpointing)
  bool skipped = false;                 ///< no update: see bad_steps.jsonl
  std::map<std::string, double> extra;  ///< an objective's own numbers, "rewards/margins"
};

/// A result of validation: a line of metrics.jsonl of its own, keys "eval_…".
struct EvalMetrics {
  std::int64_t step = 0;  ///< after this step
  std::string stage;
  double loss = 0, token_accuracy = 0;
  std::int64_t samples = 0, tokens = 0;  ///< tokens: supervised ones
  double seconds = 0;
  bool best = false;  ///< of the stage so far
};

OrderedJson to_json(const StepMetrics& metrics);
OrderedJson to_json(const EvalMetrics& metrics);

/// Appends to <folder>/metrics.jsonl and, where asked, the same numbers to an event file. A run that goes
/// on at `first_step` drops lines of that step and later ones.
class MetricsWriter {
 public:
  MetricsWriter(const std::filesystem::path& folder, std::int64_t first_step, bool tensorboard);
  void write(const StepMetrics& metrics);
  void write_validation(const EvalMetrics& metrics);

 private:
  void write_line(const OrderedJson& line, const char* group);
  JsonLines lines_;
  std::optional<EventFile> events_;
};

/// What a progress line says beside the count: loss, rate, tokens and images a second, MFU, part of the
/// time that waited for data, peak memory. Rates are over the last steps.
class StepSummary {
 public:
  std::string add(const StepMetrics& metrics);

 private:
  double seconds_ = 0, wait_ = 0, tokens_ = 0, images_ = 0, mfu_ = 0;
};

/// Most memory used so far: on a CPU of the whole process, on a GPU of its tensors there.
std::int64_t peak_memory_bytes(const c10::Device& device);

}  // namespace llava
