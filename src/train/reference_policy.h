#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/llava_model.h"

namespace llava {

/// The model as it was when a stage began, without a second model: where only new LoRA pairs train it is
/// the model with its pairs switched off; else the trained tensors' first values are kept in a file of the
/// run and stand in for the present ones during a pass.
class ReferencePolicy {
 public:
  /// At a stage's first step writes `file` where one is needed; when `resumed`, reads it. Error{kInput} if
  /// it is needed and gone.
  ReferencePolicy(LlavaModel& model, std::vector<NamedParameter> trained, std::filesystem::path file,
                  bool resumed);
  /// Calls `pass` without gradients, with the reference's weights in place. Not between a forward and its
  /// backward.
  void run(const std::function<void()>& pass);
  /// Of all its weights; for keys of what was computed with them.
  std::uint64_t hash();
  /// Whether the tower is the policy's, so that vision features serve both.
  bool shares_tower() const { return shares_tower_; }

 private:
  void read_file();
  void swap_in();

  LlavaModel& model_;
  std::vector<NamedParameter> trained_;
  std::filesystem::path file_;
  bool pairs_off_ = false;  ///< new pairs: the reference has none
  bool shares_tower_ = true;
  std::map<std::string, at::Tensor> first_;  ///< values at the stage's start, read when first needed
};

}  // namespace llava
