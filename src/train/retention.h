#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <vector>

namespace llava {

/// `checkpoint-<step>` folders of a run that were finished (they have a manifest), by step.
std::map<std::int64_t, std::filesystem::path> list_checkpoints(const std::filesystem::path& output);

/// Which of the checkpoints at `steps` (ascending) go: all but the newest, the best and then the newest
/// others up to `limit` in all. The newest and the best stay even if that is one more than `limit`; 0: all
/// stay.
std::vector<std::int64_t> superseded_steps(const std::vector<std::int64_t>& steps, std::int64_t limit,
                                           std::optional<std::int64_t> best);

/// Removes what superseded_steps names. A folder is renamed before its files go, so that a kill leaves no
/// half checkpoint under a good name. What cannot be removed does no harm and stays.
void prune_checkpoints(const std::filesystem::path& output, std::int64_t limit,
                       std::optional<std::int64_t> best);

/// What a run starts with: removes what killed saves left behind, and renames checkpoints after `step` to
/// `superseded-checkpoint-<step>`: they are damaged, or of a course that is not continued, and must not
/// count as the newest. Returns how many were renamed.
std::size_t set_aside_later(const std::filesystem::path& output, std::int64_t step);

}  // namespace llava
