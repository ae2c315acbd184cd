#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "convert/model_writer.h"

namespace llava {

struct ConvertOptions {
  std::filesystem::path in, out;
  std::optional<std::filesystem::path> base;     ///< --model-base, where `in` does not name it
  std::optional<std::filesystem::path> adapter;  ///< a PEFT or LLaVA LoRA folder, merged into the weights
  TargetLayout target = TargetLayout::kSame;
  std::optional<c10::ScalarType> dtype;  ///< none: each weight as stored
  std::int64_t max_shard_bytes = kDefaultShardBytes;
};

/// Writes a checkpoint in a layout, adapters merged: weights, config, tokenizer, processor. `out` appears whole
/// or not at all. Memory stays near the largest tensor, files are mapped. Error{kUsage} if `out` exists,
/// {kUnsupported} for models the layout cannot express.
void convert_checkpoint(const ConvertOptions& options);

/// Writes the folder `out` as `write` fills a temporary one beside it, which is then renamed. An existing `out` is
/// replaced only with `replace`.
void write_folder_atomic(const std::filesystem::path& out, bool replace,
                         const std::function<void(const std::filesystem::path& building)>& write);

/// Weights, config and side files of `base` with `writing`'s changes, into the existing `folder`. `final_folder` is
/// where it will stand (the original layout names its tower by path).
void write_model(const std::filesystem::path& folder, const std::filesystem::path& final_folder,
                 const CheckpointInfo& base, ModelWriting writing);

}  // namespace llava
