#include "train/validation.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <future>

#include "base/error.h"
#include "base/log.h"
#include "train/random_state.h"

namespace llava {

namespace {

/// `wanted` of `size` indices, evenly spaced; all for 0.
std::vector<std::size_t> spread_indices(std::size_t size, std::int64_t wanted) {
  const std::size_t count = wanted > 0 ? std::min(size, static_cast<std::size_t>(wanted)) : size;
  std::vector<std::size_t> indices(count);
  for (std::size_t i = 0; i < count; ++i) indices[i] = i * size / count;
  return indices;
}

/// Puts the random states back that were there.
class KeptRandomStates {
 public:
  explicit KeptRandomStates(c10::Device device) : state_(device) {}
  ~KeptRandomStates() { state_.restore(); }
  KeptRandomStates(const KeptRandomStates&) = delete;
  KeptRandomStates& operator=(const KeptRandomStates&) = delete;

 private:
  RandomState state_;
};

}  // namespace

TokenScores score_tokens(LlavaModel& model, const MultimodalBatch& batch) {
  constexpr std::int64_t kChunkElements = std::int64_t{1} << 24;
  const at::NoGradGuard no_grad;
  TokenScores scores;
  const std::int64_t length = batch.labels.size(1);
  if (length < 2) return scores;
  // The hidden state at t predicts the label at t + 1.
  const at::Tensor next = batch.labels.slice(1, 1).to(model.device());
  const at::Tensor hidden = model.decode(model.embed(batch), batch).slice(1, 0, length - 1).flatten(0, 1);
  const at::Tensor labels = next.flatten(), rows = labels.ne(-100).nonzero().squeeze(1);
  const std::int64_t chunk =
      std::clamp<std::int64_t>(kChunkElements / model.config().decoder.vocab_size, 1, 4096);
  scores.tokens = rows.numel();
  for (std::int64_t begin = 0; begin < scores.tokens; begin += chunk) {
    const at::Tensor part = rows.slice(0, begin, std::min(begin + chunk, scores.tokens));
    const at::Tensor targets = labels.index_select(0, part);
    const at::Tensor logits = model.logits(hidden.index_select(0, part)).to(at::kFloat);
    scores.loss += at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum).item<double>();
    scores.right += logits.argmax(-1).eq(targets).sum().item<std::int64_t>();
  }
  return scores;
}

Validator::Validator(const ValidationConfig& config, const SamplePreparer& training,
                     std::int64_t stage_batch)
    : config_(config),
      batch_size_(config.batch_size > 0 ? config.batch_size : stage_batch),
      dataset_(std::make_unique<Dataset>(config.data)),
      preparer_(training),
      indices_(spread_indices(dataset_->size(), config.max_samples)) {
  preparer_.dataset = dataset_.get();
  preparer_.kind = RecordKind::kInstruction;  // whatever the stage trains on
  preparer_.needs_answer = false;
  preparer_.prompt.mode = PromptMode::kTrain;
}

bool Validator::due(std::int64_t stage_step, std::int64_t total) const {
  return stage_step > 0 && (stage_step % config_.every_steps == 0 || stage_step == total);
}

std::vector<PreparedSample> Validator::prepare(std::size_t begin, std::size_t end) {
  std::vector<PreparedSample> samples;
  for (std::size_t i = begin; i < end; ++i) {
    auto sample = try_outcome([&] { return preparer_(indices_[i]); });
    if (sample) {
      samples.push_back(std::move(sample).value());
    } else if (!bad_named_) {
      log_warning("validation", "left out: {}", sample.error().what());
    }
  }
  return samples;
}

std::optional<EvalMetrics> Validator::measure(LlavaModel& model, const MakeBatch& make_batch,
                                              const std::atomic<bool>* stop) {
  const KeptRandomStates kept(model.device());
  const at::NoGradGuard no_grad;
  const auto start = std::chrono::steady_clock::now();
  const auto size = static_cast<std::size_t>(batch_size_);
  const auto ahead = [&](std::size_t begin) {
    return std::async(std::launch::async, [this, begin, end = std::min(begin + size, indices_.size())] {
      return prepare(begin, end);
    });
  };
  EvalMetrics result;
  TokenScores sum;
  auto next = ahead(0);
  for (std::size_t begin = 0; begin < indices_.size(); begin += size) {
    const std::vector<PreparedSample> samples = next.get();
    if (begin + size < indices_.size()) next = ahead(begin + size);
    if (stop != nullptr && *stop) return std::nullopt;
    if (samples.empty()) continue;
    std::vector<const PreparedSample*> rows;
    for (const PreparedSample& sample : samples) rows.push_back(&sample);
    const TokenScores scores = score_tokens(model, make_batch(rows));
    sum.loss += scores.loss;
    sum.tokens += scores.tokens;
    sum.right += scores.right;
    result.samples += static_cast<std::int64_t>(samples.size());
  }
  bad_named_ = true;
  if (sum.tokens == 0)
    throw Error(ErrorKind::kInput, "validation: no sample of its data can be used",
                "`llava train --dry-run` and the warnings above say why");
  result.tokens = sum.tokens;
  result.loss = sum.loss / static_cast<double>(sum.tokens);
  result.token_accuracy = static_cast<double>(sum.right) / static_cast<double>(sum.tokens);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

std::vector<PreparedSample> Validator::samples_to_show() const {
  std::vector<PreparedSample> samples;
  for (std::size_t i = 0; i < indices_.size(); ++i) {
    if (samples.size() == static_cast<std::size_t>(config_.show_samples)) break;
    if (auto sample = try_outcome([&] { return preparer_(indices_[i]); }))
      samples.push_back(std::move(sample).value());
  }
  return samples;
}

bool note_result(const ValidationConfig& config, ValidationState& state, std::int64_t stage,
                 std::int64_t steps_done, double loss) {
  if (state.stage != stage) state = ValidationState{.stage = stage};
  state.measured_step = steps_done;
  const bool first = state.best_step < 0;
  if (std::isfinite(loss) && (first || loss < state.best_loss - config.min_delta)) {
    state.best_step = steps_done;
    state.best_loss = loss;
    state.since_best = 0;
    return true;
  }
  ++state.since_best;
  state.stop = config.patience > 0 && state.since_best >= config.patience;
  return false;
}

}  // namespace llava
