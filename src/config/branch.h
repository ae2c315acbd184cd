#pragma once
#include <cstdint>

namespace llava {

/// A training sample may be a tree of two levels over a shared prefix (Prompt::branch,
/// MultimodalBatch::branch): group g (1, 2, …: one question) and its member m (0: the group's shared
/// tokens; 1, 2, …: its answers). 0 is the prefix.
inline constexpr std::int32_t kBranchGroup = 1 << 12;
constexpr std::int32_t branch_id(int group, int member) { return group * kBranchGroup + member; }

}  // namespace llava
