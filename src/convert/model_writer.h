#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "checkpoint/checkpoint.h"
#include "convert/target_names.h"

/// Writes a checkpoint's weights again, some of them changed, one tensor at a time.
namespace llava {

constexpr std::int64_t kDefaultShardBytes = std::int64_t{5'000'000'000};  ///< as transformers writes

struct ModelWriting {
  TargetLayout target = TargetLayout::kSame;
  std::optional<c10::ScalarType> dtype;          ///< of all weights; none: each as stored
  std::set<std::string> changed;                 ///< canonical names that `change` makes anew
  std::optional<c10::ScalarType> changed_dtype;  ///< theirs, where `dtype` is none
  /// The new tensor, of any floating-point dtype. `stored` gives the base's in float32, so that what is computed
  /// from it is rounded once.
  std::function<at::Tensor(const std::string& canonical, const std::function<at::Tensor()>& stored)> change;
  std::int64_t vocab_size = 0;  ///< rows of embedding and head: cut off, or the mean row added; 0: as stored
  bool with_tower = true;       ///< false: its file stays where it is and is named
  std::int64_t max_shard_bytes = kDefaultShardBytes;
};

/// Writes model.safetensors, or shards with model.safetensors.index.json, into the existing `folder`.
/// Error{kInternal} for a changed name that no file of the base holds, {kInput} where the base's weights do
/// not fit its config.
void write_weights(const std::filesystem::path& folder, const CheckpointInfo& base, const ModelWriting& writing);

/// The vision tower alone, under its own names, as a folder's model.safetensors.
void write_tower(const std::filesystem::path& folder, const CheckpointInfo& base, const ModelWriting& writing);

}  // namespace llava
