#pragma once
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>

#include "base/fields.h"
#include "base/json.h"
#include "formats/tensor_file.h"
#include "tiny_run.h"

/// TRL's runs (tests/golden/preference) and what compares ours with them.
namespace llava::test {

inline constexpr double kRunTolerance = 1e-4;

struct Golden {
  std::filesystem::path root;
  Json report;
  std::shared_ptr<const TensorFile> tensors, start;
};
Golden open_golden(const std::filesystem::path& folder);

/// The golden runs' set-up: LoRA on the decoder, nothing else trains.
TrainConfig preference_config(const Golden& golden, const std::filesystem::path& output,
                              Objective objective);

/// Those of `keys` that the golden run's settings have.
template <class T>
T settings_of(const Json& run, std::initializer_list<const char*> keys) {
  OrderedJson json = OrderedJson::object();
  for (const char* key : keys)
    if (run["config"].contains(key)) json[key] = OrderedJson::parse(run["config"][key].dump());
  return from_fields<T>(json);
}

/// Runs with the golden's LoRA matrices and keeps copies of all parameters after the last step: the
/// trainer's model has merged its pairs in the end.
RunResult run_keeping_pairs(const TrainConfig& config, const Golden& golden,
                            const AnswerSampler& sampler = {});

/// Losses, gradient norms and the objective's own numbers of every step.
void expect_equal_steps(const RunResult& run, const Json& golden, const std::string& name);
/// The LoRA pairs that the golden keeps.
void expect_equal_pairs(const std::map<std::string, at::Tensor>& last, const Golden& golden,
                        const std::string& prefix);
void expect_equal_bits(const RunResult& a, const RunResult& b);

}  // namespace llava::test
