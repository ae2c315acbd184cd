#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "config/stage_config.h"
#include "data/dataset.h"

namespace llava {

/// Reference log-probabilities of the samples of a data set, two numbers for each, kept in a safetensors
/// file with the key of what they were computed from.
class ReferenceLogProbs {
 public:
  /// Reads `file` if it is there. Error{kInput} if it was made for other data, weights or tokens.
  ReferenceLogProbs(std::filesystem::path file, std::string key, std::size_t num_samples);
  bool complete() const { return complete_; }
  /// Whether both numbers of a sample are known.
  bool has(std::size_t sample) const;
  double first(std::size_t sample) const { return values_[2 * sample]; }
  double second(std::size_t sample) const { return values_[2 * sample + 1]; }
  void set(std::size_t sample, float first, float second);
  /// Writes the file; all that will be asked for is known.
  void finish();

 private:
  std::filesystem::path file_;
  std::string key_;
  std::vector<float> values_;  ///< [samples,2]; NaN: not known
  bool complete_ = false;
};

/// A key of the records and of everything that decides how they become tokens.
std::string data_key(const Dataset& dataset, const StageConfig& config);

}  // namespace llava
