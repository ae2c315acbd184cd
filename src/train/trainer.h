#pragma once
#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/stage_config.h"
#include "data/loader.h"
#include "data/prepare.h"
#include "data/validate.h"
#include "dist/collectives.h"
#include "model/llava_model.h"
#include "train/checkpoint_saver.h"
#include "train/feature_cache.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "train/plan.h"
#include "train/step_objective.h"

namespace llava {

struct StepShare;

struct TrainOptions {
  std::string
      resume;  ///< "": start anew (refused if the output has checkpoints), "auto", or a checkpoint folder
  const std::atomic<bool>* stop = nullptr;  ///< set by a signal: finish the step, save, Error{kStopped}
  std::string code_version;                 ///< noted in checkpoints
  c10::Device device = c10::Device(c10::kCPU);
  std::shared_ptr<Collectives> group;  ///< the processes that train together; null: this one alone
  std::function<void(const StepMetrics&)> on_step;        ///< after each step
  std::function<void(const EvalMetrics&)> on_validation;  ///< after each result
  std::function<void(std::string_view)> on_save_phase;    ///< CheckpointSaver::Options::on_phase
  std::function<void(LlavaModel&)>
      on_stage_start;     ///< after LoRA pairs exist, before the optimizer is made
  AnswerSampler sampler;  ///< of objective grpo
  AnswerJudge judge;      ///< of objective grpo's reward "judge"
};

/// What the report shows besides the metrics; files of the output folder.
struct RunLogs {
  JsonLines bad_steps, bad_samples, stages, samples;
};

/// Runs the stages of a config.
class Trainer {
 public:
  Trainer(TrainConfig config, TrainOptions options);
  ~Trainer();
  /// All stages, from the start or from where a checkpoint stopped; writes `final/` at the end.
  /// Error{kStopped} when asked to stop, with the work saved; Error{kInternal} for a loss that is not
  /// finite where on_nonfinite is abort (nothing is saved then).
  void run();
  /// Loads the model, sets every stage up, builds its first step's batches, trains nothing and writes nothing.
  void dry_run();
  /// Looks at every sample of every stage as training would, without the model's weights: a report for each
  /// stage.
  std::vector<DataReport> check_data(const ValidateOptions& options);
  LlavaModel& model() { return *model_; }

 private:
  struct Stage;
  void load_model_once();
  void start_or_resume();
  std::unique_ptr<Stage> open_stage(std::int64_t index, bool with_cache);
  void fill_cache(Stage& stage);
  void run_stage(Stage& stage);
  StepMetrics run_step(Stage& stage, Loader& loader);
  bool is_half() const;
  double loss_scale() const;
  double backward(Stage& stage, const LoadedStep& step, StepMetrics& metrics);
  std::unique_ptr<StepObjective> open_step_objective(const Stage& stage) const;
  CollateRow make_row(const Stage& stage, const PreparedSample& sample) const;
  double backward_batch(Stage& stage, const LoadedStep& step, const std::vector<std::size_t>& rows,
                        const std::vector<std::int64_t>& terms, const StepShare& share);
  StepShare share_step(Stage& stage, const LoadedStep& step, const std::vector<std::int64_t>& terms,
                       std::size_t micro_batches, StepMetrics& metrics);
  double end_backward(Stage& stage, double& loss);
  std::int64_t rank() const { return options_.group ? options_.group->rank() : 0; }
  std::int64_t world() const { return options_.group ? options_.group->size() : 1; }
  bool is_main() const { return rank() == 0; }
  void wait_for_all(const char* what);
  void agree_on_start();
  void make_optimizer(Stage& stage);
  bool must_stop(const Stage& stage) const;
  void empty_pass();
  /// Each rank writes its part of a checkpoint; where those files are. Empty: there are none.
  std::vector<std::filesystem::path> write_shards(const Stage* stage);
  /// Restores a stage from the parts that ranks wrote; false: a plain checkpoint for a plain run.
  bool resume_shards(Stage& stage);
  /// zero3: a pass of the model is a matter of all ranks.
  static bool layers_are_cut(const Stage& stage);
  /// Samples behind each other in packed rows, or a padded row each, as measuring and answering want them.
  MultimodalBatch make_batch(const Stage& stage, const std::vector<const PreparedSample*>& rows,
                             bool packed) const;
  /// [rows,D]; undefined unless the objective needs them.
  at::Tensor answer_directions(const Stage& stage, const std::vector<const PreparedSample*>& rows) const;
  void note_bad_samples(const Stage& stage, const LoadedStep& step);
  void open_watch();
  void note_rates(const Stage& stage, double multiplier, StepMetrics& metrics) const;
  bool overflowed(const Stage& stage, const StepMetrics& metrics);
  bool accept_step(const Stage& stage, const LoadedStep& step, const StepMetrics& metrics);
  void describe_stage(const Stage& stage, const LoadedStep& first);
  bool validate(Stage& stage);
  void show_answers(const Stage& stage);
  bool stopped_early(const Stage& stage) const;
  void save(const Stage* stage);
  void resume_stage(Stage& stage);
  void end_stage(Stage& stage);

  TrainConfig config_;
  TrainOptions options_;
  std::string config_yaml_;
  std::filesystem::path resume_from_;
  CheckpointInfo checkpoint_;
  std::unique_ptr<LlavaModel> model_;
  TrainState state_;
  std::unique_ptr<MetricsWriter> metrics_;
  std::unique_ptr<RunLogs> logs_;
  std::unique_ptr<CheckpointSaver> saver_;
  std::int64_t saved_step_ = -1;  ///< of the newest checkpoint
  double save_seconds_ = 0;  ///< since the last step
  double peak_flops_ = 0;
};

/// Samples that share a packed row: longest first, each into the row with the least room that is enough (best-fit
/// decreasing). A longer one than `packing_length` stands alone. Indices into `lengths`, rising within a row; a
/// function of the lengths only.
std::vector<std::vector<std::size_t>> cut_packs(const std::vector<std::size_t>& lengths,
                                                std::int64_t packing_length);

/// A step's micro-batches as the stage wants them: packed, or by cut_micro_batches.
std::vector<std::vector<std::size_t>> micro_batches(const std::vector<std::size_t>& lengths,
                                                    const StageConfig& config);

/// Groups a step's samples into micro-batches: `batch_size` in order, or, with a token budget, by length so
/// that rows * longest
/// <= budget (a single longer row stands alone). Returns indices into `lengths`.
std::vector<std::vector<std::size_t>> cut_micro_batches(const std::vector<std::size_t>& lengths,
                                                        std::int64_t batch_size, std::int64_t max_tokens);

}  // namespace llava
