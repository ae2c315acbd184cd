#include "config/watch_config.h"

#include <cmath>

#include "config/stage_config.h"

namespace llava {

namespace {

void demand(bool condition, const std::string& key, const char* rule) {
  if (!condition) fail(ErrorKind::kInput, "{}: {}", key, rule);
}

}  // namespace

void check_guard(const GuardConfig& g, const std::string& path) {
  demand(g.max_nonfinite_skips >= 0, path + ".max_nonfinite_skips", "must not be negative");
  demand(std::isfinite(g.spike_zscore) && g.spike_zscore >= 0, path + ".spike_zscore",
         "must not be negative (0: off)");
  demand(g.spike_window >= 8 && g.spike_window <= 100000, path + ".spike_window", "must be in [8, 100000]");
}

void check_ema(const EmaConfig& ema, const std::string& path) {
  demand(ema.ema_decay >= 0 && ema.ema_decay < 1, path + ".ema_decay",
         "must be in [0, 1) (0: no averages)");
  demand(!ema.ema_final || ema.ema_decay > 0, path + ".ema_final", "needs ema_decay above 0");
}

void check_validation(const ValidationConfig& c, const EmaConfig& ema, const std::string& path) {
  demand(!c.data.empty(), path + ".data", "at least one source is needed");
  for (const DataSourceConfig& source : c.data) {
    demand(!source.path.empty(), path + ".data.path", "is missing");
    demand(source.weight == 1.0, path + ".data.weight",
           "every record is measured once: use limit or max_samples");
  }
  demand(c.every_steps > 0, path + ".every_steps", "must be above 0");
  demand(c.max_samples >= 0 && c.batch_size >= 0 && c.patience >= 0 && c.show_samples >= 0, path,
         "max_samples, batch_size, patience and show_samples must not be negative");
  demand(std::isfinite(c.min_delta) && c.min_delta >= 0, path + ".min_delta", "must not be negative");
  demand(!c.use_ema || ema.ema_decay > 0, path + ".use_ema", "needs the stage's ema_decay above 0");
}

}  // namespace llava
