#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "model/llava_model.h"
#include "vision/video.h"

namespace llava {

/// What the command line says about a model.
struct OpenOptions {
  std::string model = "llava-nano";         ///< folder, file, installed name, or random:RECIPE
  std::optional<std::string> base;          ///< --model-base
  std::optional<std::string> vision_tower;  ///< --vision-tower
  bool delta = false;                       ///< --delta: weights are differences from `base`
  std::string dtype = "auto";               ///< auto, float32, bfloat16, float16
  std::string device = "auto";              ///< auto, cpu, cuda, cuda:1
  std::string chat_format;                  ///< a named format instead of the checkpoint's own
  std::uint64_t seed = 0;                   ///< of random:RECIPE
  VideoLimits limits;                       ///< of images, which go into the image policy, and of films
};

/// A checkpoint with its loaded model.
struct ModelBundle {
  CheckpointInfo checkpoint;
  std::unique_ptr<LlavaModel> model;
  bool has_vision() const { return checkpoint.model.tower.has_value(); }
};

/// Everything but the weights. random:RECIPE gives a recipe's config without tokenizer.
CheckpointInfo open_checkpoint(const OpenOptions& options);

/// "float32" | "bfloat16" | "float16"; Error{kUsage} otherwise.
c10::ScalarType parse_dtype(const std::string& name);

/// "cpu", "cuda", "cuda:N"; "auto" is cuda where there is one. Error{kUsage} for other words, Error{kInput}
/// where the device is not there.
c10::Device parse_device(const std::string& name);

/// Opens and loads. dtype "auto": what is stored on CUDA; on the CPU float32 if twice its size fits into
/// memory, else as stored.
ModelBundle open_model(const OpenOptions& options);
/// The same for a checkpoint that open_checkpoint has read already.
ModelBundle load_bundle(CheckpointInfo checkpoint, const OpenOptions& options);

}  // namespace llava
