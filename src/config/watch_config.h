#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/fields.h"

/// What a run does about bad steps, and how it is measured while it runs.
namespace llava {

struct DataSourceConfig;

enum class NonfinitePolicy { kAbort, kSkip };
enum class SpikePolicy { kWarn, kSkip };

template <>
struct EnumTable<NonfinitePolicy> {
  static constexpr std::pair<const char*, NonfinitePolicy> names[] = {{"abort", NonfinitePolicy::kAbort},
                                                                      {"skip", NonfinitePolicy::kSkip}};
};
template <>
struct EnumTable<SpikePolicy> {
  static constexpr std::pair<const char*, SpikePolicy> names[] = {{"warn", SpikePolicy::kWarn},
                                                                  {"skip", SpikePolicy::kSkip}};
};

/// Keys of a stage, beside its other ones.
struct GuardConfig {
  NonfinitePolicy on_nonfinite = NonfinitePolicy::kAbort;
  std::int64_t max_nonfinite_skips = 10;  ///< in a row; one more ends the run
  double spike_zscore = 0;                ///< a loss or norm this many deviations above the window; 0: off
  SpikePolicy spike_policy = SpikePolicy::kWarn;
  std::int64_t spike_window = 128;  ///< steps; judged once a quarter of them is there
};

/// Keys of a stage, beside its other ones.
struct EmaConfig {
  double ema_decay = 0;    ///< average <- decay * average + (1 - decay) * weight after each step; 0: none
  bool ema_final = false;  ///< the stage ends with the averages as its weights
};

/// `validation` of a stage.
struct ValidationConfig {
  std::vector<DataSourceConfig> data;
  std::int64_t every_steps = 100;  ///< and at the end of the stage
  std::int64_t max_samples = 0;    ///< spread evenly over the data; 0: all
  std::int64_t batch_size = 0;     ///< 0: the stage's
  std::int64_t patience = 0;       ///< the stage ends after so many results without a better one; 0: off
  double min_delta = 0;            ///< a better loss is lower than the best by more than this
  bool load_best_model_at_end = false;  ///< the stage ends with the weights of the best checkpoint
  bool use_ema = false;                 ///< measures the averages
  std::int64_t show_samples = 4;        ///< answered in full for the report; 0: none
};

/// Throws Error{kInput} naming the key under `path` for a value that cannot work.
void check_guard(const GuardConfig& guard, const std::string& path);
void check_validation(const ValidationConfig& validation, const EmaConfig& ema, const std::string& path);
void check_ema(const EmaConfig& ema, const std::string& path);

template <class V>
void visit_fields(V& v, GuardConfig& c) {
  v("on_nonfinite", c.on_nonfinite), v("max_nonfinite_skips", c.max_nonfinite_skips);
  v("spike_zscore", c.spike_zscore), v("spike_policy", c.spike_policy), v("spike_window", c.spike_window);
}
template <class V>
void visit_fields(V& v, EmaConfig& c) {
  v("ema_decay", c.ema_decay), v("ema_final", c.ema_final);
}
template <class V>
void visit_fields(V& v, ValidationConfig& c) {
  v("data", c.data), v("every_steps", c.every_steps), v("max_samples", c.max_samples);
  v("batch_size", c.batch_size), v("patience", c.patience), v("min_delta", c.min_delta);
  v("load_best_model_at_end", c.load_best_model_at_end), v("use_ema", c.use_ema);
  v("show_samples", c.show_samples);
}

}  // namespace llava
