#pragma once
#include <filesystem>
#include <memory>
#include <vector>

#include "formats/tensor_file.h"

namespace llava {

/// The weight files of a checkpoint, checked and in the order to load them. `path` is
///  - a folder: its model.safetensors.index.json, model.safetensors, pytorch_model.bin.index.json or
///  pytorch_model.bin, the
///    first there is (then adapter_model.safetensors / .bin);
///  - an index file (*.index.json with a "weight_map");
///  - a weight file.
/// Error{kInput} lists all shards that are missing; Error{kFormat} for a bad index or a shard name that
/// leaves the folder.
std::vector<std::filesystem::path> weight_files(const std::filesystem::path& path);

/// Opens weight_files(path). Every tensor of the index must be in the shard it names: Error{kFormat} lists
/// all that are not.
std::vector<std::shared_ptr<const TensorFile>> open_sharded(const std::filesystem::path& path);

}  // namespace llava
