#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fields.h"
#include "config/distributed_config.h"
#include "config/frozen_compute.h"
#include "config/gradient_checkpointing.h"
#include "config/lora_settings.h"
#include "config/media_limits_config.h"
#include "config/optim_config.h"
#include "config/plan_config.h"
#include "config/preference_config.h"
#include "config/quantization.h"
#include "config/watch_config.h"

/// The training config of `llava train` (docs: cli.md). One struct per level, one visit_fields each; names
/// are the file's keys.
namespace llava {

enum class LossNormalisation {
  kToken,
  kMicroBatch
};  ///< mean over the step's labelled tokens | mean of micro-batch means
enum class SamplerKind { kRandom, kLength, kModality, kSequential, kLlavaLength, kLlavaModality };
enum class TurnMode {
  kConversation,
  kIndependent
};  ///< independent: every question sees the image only (branches)
enum class FeatureCacheMode { kAuto, kBfloat16 /* half the file of float32 */, kOff };
enum class Objective { kLm, kAnswerEmbedding, kDpo, kKto, kGrpo };
/// model: as the checkpoint's family does it; segments: every segment of the template alone, then joined.
enum class TokenisationMode { kModel, kSegments };

template <>
struct EnumTable<LossNormalisation> {
  static constexpr std::pair<const char*, LossNormalisation> names[] = {
      {"token", LossNormalisation::kToken}, {"micro-batch", LossNormalisation::kMicroBatch}};
};
template <>
struct EnumTable<SamplerKind> {
  static constexpr std::pair<const char*, SamplerKind> names[] = {
      {"random", SamplerKind::kRandom},
      {"length", SamplerKind::kLength},
      {"modality", SamplerKind::kModality},
      {"sequential", SamplerKind::kSequential},
      {"llava_length", SamplerKind::kLlavaLength},
      {"llava_modality", SamplerKind::kLlavaModality}};
};
template <>
struct EnumTable<TurnMode> {
  static constexpr std::pair<const char*, TurnMode> names[] = {{"conversation", TurnMode::kConversation},
                                                               {"independent", TurnMode::kIndependent}};
};
template <>
struct EnumTable<FeatureCacheMode> {
  static constexpr std::pair<const char*, FeatureCacheMode> names[] = {
      {"auto", FeatureCacheMode::kAuto},
      {"bfloat16", FeatureCacheMode::kBfloat16},
      {"off", FeatureCacheMode::kOff}};
};
template <>
struct EnumTable<Objective> {
  static constexpr std::pair<const char*, Objective> names[] = {
      {"lm", Objective::kLm},
      {"answer_embedding", Objective::kAnswerEmbedding},
      {"dpo", Objective::kDpo},
      {"kto", Objective::kKto},
      {"grpo", Objective::kGrpo}};
};
template <>
struct EnumTable<TokenisationMode> {
  static constexpr std::pair<const char*, TokenisationMode> names[] = {
      {"model", TokenisationMode::kModel}, {"segments", TokenisationMode::kSegments}};
};

struct DataSourceConfig {
  std::string path;  ///< LLaVA JSON or JSONL, WebDataset .tar, .parquet; or a pattern: shard-{000..099}.tar
  std::string image_root;  ///< put before relative image names; default: the file's folder
  double weight = 1.0;  ///< passes over this source in one epoch: 0.5 a random half, 2 every record twice
  std::int64_t limit = 0;  ///< only the first N records; 0: all
  bool optional = false;   ///< left out where the file does not exist
};

struct StageConfig {
  std::string name = "stage";
  std::vector<DataSourceConfig> data;
  std::vector<std::string>
      train;  ///< regular expressions on canonical parameter names; everything else is frozen
  PatternNumbers lr = {{"", 1e-4}};  ///< first pattern that is found in the name
  std::optional<LoraSettings> lora;
  std::optional<std::string>
      chat_template;           ///< key `template`: a conversation format; null: the model's own
  std::int64_t max_steps = 0;  ///< 0: by epochs
  double epochs = 1;
  std::int64_t batch_size = 8;
  std::int64_t grad_accum = 1;
  std::int64_t max_length = 2048;
  std::int64_t max_tokens_per_batch =
      0;  ///< > 0: a step's samples are cut into micro-batches of at most this many padded tokens
  bool packing = false;             ///< samples share rows without padding; each sees itself only
  std::int64_t packing_length = 0;  ///< tokens of a packed row; 0: max_tokens_per_batch, else max_length
  OptimConfig optim;
  ScheduleConfig schedule;
  LossNormalisation loss_normalisation = LossNormalisation::kToken;
  SamplerKind sampler = SamplerKind::kRandom;
  std::string dtype = "bfloat16";
  TurnMode turns = TurnMode::kConversation;
  FeatureCacheMode feature_cache = FeatureCacheMode::kAuto;
  Objective objective = Objective::kLm;
  std::optional<PreferenceConfig> preference;  ///< of objectives dpo and kto; null: the defaults
  std::optional<GrpoConfig> grpo;              ///< of objective grpo
  FrozenCompute frozen_compute = FrozenCompute::kModel;  ///< int8: faster on a CPU, with rounding noise
  TokenisationMode tokenisation = TokenisationMode::kModel;
  GradientCheckpointing gradient_checkpointing;
  std::int64_t pack_tokens() const {
    return packing_length > 0 ? packing_length : max_tokens_per_batch > 0 ? max_tokens_per_batch : max_length;
  }
  GuardConfig guard;  ///< its keys are the stage's
  EmaConfig ema;      ///< its keys are the stage's
  std::optional<ValidationConfig> validation;
  std::optional<ExpectedData> expected;  ///< what --plan counts with where the data are not here
  std::optional<AspectRatio> image_aspect_ratio;  ///< square or pad, in place of the model's own way
  std::int64_t samples_per_step() const { return batch_size * grad_accum; }
};

struct TrainConfig {
  std::string model;
  std::string recipe;  ///< a model of `llava inspect recipe`: what --plan counts with where `model` is not here
  std::string output;
  std::uint64_t seed = 0;
  std::optional<QuantizationSettings> quantization;  ///< the frozen linear layers in 4 bits (QLoRA)
  std::int64_t save_steps = 100;      ///< 0: only at the end of a stage and when stopped
  std::int64_t save_total_limit = 2;  ///< checkpoints kept; 0: all
  bool async_save = true;             ///< checkpoints are written beside the training
  bool tensorboard = true;            ///< events beside metrics.jsonl
  std::int64_t loader_threads = 2;    ///< decode, resize and tokenise ahead of the step
  double max_bad_fraction =
      0.01;  ///< of the samples seen (at least 10) may be unusable before the run stops
  std::int64_t feature_cache_bytes = std::int64_t{8} << 30;  ///< a cache that would be larger is not made
  MediaLimitsConfig media;
  DistributedConfig distributed;  ///< where several processes train
  std::vector<StageConfig> stages;

  /// Whether `bad` of `samples` that cannot be used are more than max_bad_fraction allows.
  bool too_many_bad(std::int64_t bad, std::int64_t samples) const {
    return static_cast<double>(bad) > std::max(10.0, max_bad_fraction * static_cast<double>(samples));
  }
};

template <class V>
void visit_fields(V& v, DataSourceConfig& c) {
  v("path", c.path), v("image_root", c.image_root), v("weight", c.weight), v("limit", c.limit),
      v("optional", c.optional);
}
template <class V>
void visit_fields(V& v, StageConfig& c) {
  v("name", c.name), v("data", c.data), v("train", c.train), v("lr", c.lr), v("lora", c.lora);
  v("template", c.chat_template), v("max_steps", c.max_steps), v("epochs", c.epochs),
      v("batch_size", c.batch_size);
  v("grad_accum", c.grad_accum), v("max_length", c.max_length),
      v("max_tokens_per_batch", c.max_tokens_per_batch);
  v("optim", c.optim), v("schedule", c.schedule), v("loss_normalisation", c.loss_normalisation);
  v("sampler", c.sampler), v("dtype", c.dtype), v("turns", c.turns), v("feature_cache", c.feature_cache);
  v("preference", c.preference), v("grpo", c.grpo);
  v("objective", c.objective), v("tokenisation", c.tokenisation), v("frozen_compute", c.frozen_compute);
  v("packing", c.packing), v("packing_length", c.packing_length);
  v("gradient_checkpointing", c.gradient_checkpointing);
  visit_fields(v, c.guard);
  visit_fields(v, c.ema);
  v("validation", c.validation), v("expected", c.expected), v("image_aspect_ratio", c.image_aspect_ratio);
}
template <class V>
void visit_fields(V& v, TrainConfig& c) {
  v("model", c.model), v("recipe", c.recipe), v("output", c.output), v("seed", c.seed), v("quantization", c.quantization);
  v("save_steps", c.save_steps), v("async_save", c.async_save), v("tensorboard", c.tensorboard);
  v("save_total_limit", c.save_total_limit), v("loader_threads", c.loader_threads);
  v("max_bad_fraction", c.max_bad_fraction), v("feature_cache_bytes", c.feature_cache_bytes);
  v("media", c.media), v("distributed", c.distributed), v("stages", c.stages);
}

/// The config of a parsed file. Error{kInput} names the key: unknown (with the nearest known one), wrong
/// type, or a value that cannot work (no stages, no data, batch_size 0, a regular expression that does not
/// compile…).
TrainConfig train_config_from_json(const OrderedJson& json);

/// Reads a YAML or JSON file, applies `--set` assignments, and resolves paths relative to the file's
/// folder.
TrainConfig read_train_config(const std::string& path, const std::vector<std::string>& assignments);

}  // namespace llava
