#include "train/retention.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <string>
#include <string_view>

#include "base/log.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kCheckpointPrefix = "checkpoint-";

std::optional<std::int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (name.rfind(kCheckpointPrefix, 0) != 0) return std::nullopt;
  std::int64_t step = 0;
  const char* begin = name.data() + kCheckpointPrefix.size();
  const auto [end, error] = std::from_chars(begin, name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return std::nullopt;
  return step;
}

}  // namespace

std::map<std::int64_t, fs::path> list_checkpoints(const fs::path& output) {
  std::map<std::int64_t, fs::path> found;
  if (!fs::is_directory(output)) return found;
  for (const auto& entry : fs::directory_iterator(output))
    if (const auto step = step_of(entry.path());
        step && fs::is_regular_file(entry.path() / "manifest.json"))
      found[*step] = entry.path();
  return found;
}

std::vector<std::int64_t> superseded_steps(const std::vector<std::int64_t>& steps, std::int64_t limit,
                                           std::optional<std::int64_t> best) {
  if (limit <= 0 || steps.empty()) return {};
  std::set<std::int64_t> kept = {steps.back()};
  if (best && std::binary_search(steps.begin(), steps.end(), *best)) kept.insert(*best);
  for (auto it = steps.rbegin(); it != steps.rend() && kept.size() < static_cast<std::size_t>(limit); ++it)
    kept.insert(*it);
  std::vector<std::int64_t> gone;
  std::copy_if(steps.begin(), steps.end(), std::back_inserter(gone),
               [&](std::int64_t step) { return !kept.contains(step); });
  return gone;
}

void prune_checkpoints(const fs::path& output, std::int64_t limit, std::optional<std::int64_t> best) {
  const auto found = list_checkpoints(output);
  std::vector<std::int64_t> steps;
  for (const auto& entry : found) steps.push_back(entry.first);
  for (const std::int64_t step : superseded_steps(steps, limit, best)) {
    std::error_code failure;
    const fs::path doomed = output / fmt::format("tmp-old-{}", found.at(step).filename().string());
    fs::rename(found.at(step), doomed, failure);
    if (!failure) fs::remove_all(doomed, failure);
    if (failure) log_warning("train", "cannot remove {}: {}", doomed.string(), failure.message());
  }
}

std::size_t set_aside_later(const fs::path& output, std::int64_t step) {
  if (!fs::is_directory(output)) return 0;
  std::vector<fs::path> leftovers, later;
  for (const auto& entry : fs::directory_iterator(output)) {
    if (!entry.is_directory()) continue;
    if (entry.path().filename().string().rfind("tmp-", 0) == 0 &&
        entry.path().filename().string().find(kCheckpointPrefix) != std::string::npos)
      leftovers.push_back(entry.path());
    if (const auto found = step_of(entry.path()); found && *found > step) later.push_back(entry.path());
  }
  std::error_code ignored;
  for (const fs::path& folder : leftovers) fs::remove_all(folder, ignored);
  for (const fs::path& folder : later) {
    const fs::path aside = output / ("superseded-" + folder.filename().string());
    fs::remove_all(aside, ignored);
    fs::rename(folder, aside, ignored);
    log_warning("train", "{} is after the step the run goes on from: now {}", folder.string(),
                aside.filename().string());
  }
  return later.size();
}

}  // namespace llava
