#include "train/step_guard.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace llava {

double zscore(const std::vector<double>& window, double value) {
  if (window.empty()) return 0;
  const auto n = static_cast<double>(window.size());
  const double mean = std::accumulate(window.begin(), window.end(), 0.0) / n;
  double squares = 0;
  for (const double x : window) squares += (x - mean) * (x - mean);
  const double deviation = std::sqrt(squares / n);
  return deviation > 1e-12 * std::abs(mean) ? (value - mean) / deviation : 0;
}

StepVerdict judge_step(const GuardConfig& config, GuardState& state, double loss, double norm) {
  StepVerdict verdict;
  if (!std::isfinite(loss) || !std::isfinite(norm)) {
    verdict.update = false;
    verdict.reason = fmt::format("loss {} and gradient norm {} are not finite", loss, norm);
    verdict.abort = config.on_nonfinite == NonfinitePolicy::kAbort;
    if (!verdict.abort && state.skipped_in_row >= config.max_nonfinite_skips) {
      verdict.abort = true;
      verdict.reason += fmt::format(", after {} such steps in a row were skipped", state.skipped_in_row);
    }
    ++state.skipped;
    ++state.skipped_in_row;
    return verdict;
  }
  state.skipped_in_row = 0;
  if (config.spike_zscore <= 0) return verdict;
  if (state.losses.size() >= static_cast<std::size_t>(config.spike_window) / 4) {
    const double of_loss = zscore(state.losses, loss), of_norm = zscore(state.norms, norm);
    if (std::max(of_loss, of_norm) > config.spike_zscore) {
      verdict.reason = fmt::format("a spike: loss {:.4g} (z {:.1f}), gradient norm {:.4g} (z {:.1f})", loss,
                                   of_loss, norm, of_norm);
      verdict.update = config.spike_policy == SpikePolicy::kWarn;
      ++state.spikes;
      state.skipped += verdict.update ? 0 : 1;
    }
  }
  const auto push = [&](std::vector<double>& window, double value) {
    window.push_back(value);
    if (window.size() > static_cast<std::size_t>(config.spike_window)) window.erase(window.begin());
  };
  push(state.losses, loss);
  push(state.norms, norm);
  return verdict;
}

}  // namespace llava
