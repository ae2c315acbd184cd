#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "train/optimizer.h"
#include "train/parallel_stage.h"

namespace llava {

/// The part of a checkpoint that every rank writes itself: optimizer-rank-R-of-W.safetensors, with its random
/// states and, under a zero strategy, its slices of masters and moments and (zero3) of the layers' weights
/// ("weight/<name>"). How slices are cut follows from W alone (train/slices.h), so any number of ranks can read
/// them, one process included.

/// What this rank's file holds. `touched`: weights that differ from the base model.
std::vector<NamedParameter> rank_tensors(const ParallelStage& parallel, const Optimizer& optimizer,
                                         const std::set<std::string>& touched, c10::Device device);

/// Writes it to `folder`, from where the checkpoint takes it. Returns the file.
std::filesystem::path write_rank_file(const std::filesystem::path& folder, int rank, int world,
                                      const std::vector<NamedParameter>& tensors);
/// The names and places of all ranks' files there.
std::vector<std::filesystem::path> rank_files(const std::filesystem::path& folder, int world);

/// How many ranks wrote the checkpoint; 0: it has no rank files. Error{kFormat} if some of them are missing.
int ranks_of_checkpoint(const std::filesystem::path& folder);

/// Restores the optimizer's state, `parallel`'s layers and, if the same number of ranks wrote them, the random
/// states. `trained`: the whole tensors. `parallel` null: one process. Error{kFormat} for what is missing or
/// fits no tensor.
void load_rank_files(const std::filesystem::path& folder, LlavaModel& model,
                     const std::vector<NamedParameter>& trained, Optimizer& optimizer,
                     ParallelStage* parallel, int rank, int world);

}  // namespace llava
