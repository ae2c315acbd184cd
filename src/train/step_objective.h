#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "batch/collate.h"
#include "config/sampling_params.h"
#include "config/stage_config.h"
#include "data/loader.h"
#include "model/llava_model.h"
#include "text/tokenizer.h"
#include "train/metrics.h"
#include "train/optimizer.h"

namespace llava {

/// An answer drawn from the model in training.
struct DrawnAnswer {
  std::vector<std::int64_t> ids;  ///< without what ended it
  std::int64_t stop_id = -1;      ///< the token that ended it; -1: none
  bool ended = false;             ///< by a token or a text; else the length was used up
  std::string text;
};

/// Draws an answer for each row (row r with seed + r); the program injects its decoder, so that training
/// does not depend on it.
using AnswerSampler =
    std::function<std::vector<DrawnAnswer>(LlavaModel& model, const Tokenizer& tokenizer,
                                           std::span<const CollateRow> rows, const SamplingParams& params)>;

/// What a judge looks at.
struct JudgedAnswer {
  std::vector<std::filesystem::path> images;
  std::string question, answer;
};
/// A score in [0, 1] for an answer.
using AnswerJudge = std::function<double(const JudgedAnswer&)>;

/// What a step of an objective on whole answers works with; all of it outlives the objective.
struct StepContext {
  LlavaModel* model = nullptr;
  const StageConfig* config = nullptr;
  Optimizer* optimizer = nullptr;
  const std::vector<NamedParameter>* trained = nullptr;
  const Dataset* dataset = nullptr;
  const Tokenizer* tokenizer = nullptr;
  std::vector<std::int64_t> stop_ids;
  std::vector<std::string> stop_strings;  ///< ends of an answer that are no single token
  std::filesystem::path output;           ///< the run's folder
  std::int64_t stage = 0;
  bool resumed = false;  ///< the stage goes on: its first step was done by an earlier process
  std::uint64_t seed = 0;
  std::int64_t epoch_steps = 0;  ///< steps of the first epoch that the stage does
  /// A sample's prompt with its media: cached features, or pixels.
  std::function<CollateRow(const PreparedSample&)> row;
  /// Loads steps [0, end) as the training will and shows them.
  std::function<void(std::int64_t end, const std::function<void(const LoadedStep&)>& show)> visit_steps;
  AnswerSampler sampler;
  AnswerJudge judge;
};

/// An objective that compares answers, so that it needs all of a step's samples: dpo, kto, grpo.
class StepObjective {
 public:
  virtual ~StepObjective() = default;
  /// Forward and backward of a step; the optimizer has collected the gradients afterwards. Returns the loss
  /// and notes tokens, images and the objective's own numbers.
  virtual double backward(const LoadedStep& step, StepMetrics& metrics) = 0;
};

/// Null for objectives on single rows (objective_loss). May compute reference log-probabilities of all
/// data.
std::unique_ptr<StepObjective> make_step_objective(StepContext context);

/// How a stage of this objective reads its records.
RecordKind record_kind(Objective objective);
/// Whether one of the stage's rewards compares with a right answer.
bool needs_answer(const StageConfig& config);

/// Rows whose pixels became tower features, so that several prompts with the same media share them. Without
/// gradients unless `train_tower`.
std::vector<CollateRow> with_features(LlavaModel& model, std::vector<CollateRow> rows, bool train_tower);

/// Log-probabilities of the rows' labelled tokens, summed over stretches of `tokens` of them each:
/// [stretches].
at::Tensor answer_log_probs(LlavaModel& model, std::span<const CollateRow> rows,
                            const std::vector<std::int64_t>& tokens);
/// The tokens of a prompt's answer that are predicted.
std::int64_t answer_tokens(const Prompt& prompt);
/// Adds a sample's images and views to `metrics`.
void count_media(const PreparedSample& sample, StepMetrics& metrics);

}  // namespace llava
