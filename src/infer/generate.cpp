#include "infer/generate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "base/error.h"
#include "infer/sampler.h"
#include "infer/text_stream.h"
#include "model/kv_cache.h"

namespace llava {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// One answer in the making.
struct Row {
  Row(const CollateRow& row, std::size_t index, const GenerateOptions& options)
      : history(row.prompt->ids),
        next_position(row.prompt->positions.empty() ? static_cast<std::int64_t>(row.prompt->ids.size())
                                                    : row.prompt->positions.back() + 1),
        sampler(seeded(options.sampling, index)),
        text(options.tokenizer, options.sampling.stop_strings) {}

  static SamplingParams seeded(SamplingParams params, std::size_t index) {
    params.seed += index;
    return params;
  }

  std::vector<std::int64_t> history;  ///< prompt and answer
  std::int64_t next_position;
  Sampler sampler;
  TextStream text;
  Generation answer;
  bool done = false;
};

class GenerationRun {
 public:
  GenerationRun(LlavaModel& model, std::span<const CollateRow> inputs, const GenerateOptions& options,
                GenerationStats& stats, KvCache* cache)
      : model_(model), inputs_(inputs), options_(options), stats_(stats), cache_(cache) {
    for (std::size_t i = 0; i < inputs.size(); ++i) rows_.emplace_back(inputs[i], i, options);
  }

  std::vector<Generation> run();

 private:
  void check_lengths() const;
  at::Tensor prefill();
  at::Tensor step(const std::vector<std::int64_t>& ids);
  std::vector<std::int64_t> draw(const at::Tensor& logits);
  void accept(std::size_t index, std::int64_t id);
  void finish(std::size_t index, StopReason reason);
  void emit(std::size_t index, const std::string& text);
  bool all_done() const {
    return std::all_of(rows_.begin(), rows_.end(), [](const Row& row) { return row.done; });
  }

  LlavaModel& model_;
  std::span<const CollateRow> inputs_;
  const GenerateOptions& options_;
  GenerationStats& stats_;
  KvCache* cache_;
  std::unique_ptr<KvCache> own_cache_;
  std::vector<Row> rows_;
};

void GenerationRun::check_lengths() const {
  for (const CollateRow& input : inputs_) {
    const auto length = static_cast<std::int64_t>(input.prompt->ids.size());
    if (options_.context_length > 0 && length >= options_.context_length)
      throw Error(ErrorKind::kInput,
                  fmt::format("the prompt has {} tokens, the model's context is {}: no room for an answer",
                              length, options_.context_length),
                  "ask a shorter question, use fewer images, or start a new conversation");
  }
}

/// The rest of a prompt behind `begin` tokens that the cache holds; images before it need no features any
/// more.
Prompt tail_of(const Prompt& prompt, std::size_t begin) {
  Prompt tail;
  tail.ids.assign(prompt.ids.begin() + static_cast<std::ptrdiff_t>(begin), prompt.ids.end());
  for (std::size_t t = begin; t < prompt.ids.size(); ++t)
    tail.positions.push_back(prompt.positions.empty() ? static_cast<std::int64_t>(t) : prompt.positions[t]);
  for (const MediaSpan& span : prompt.media_spans) {
    if (span.begin + span.len <= begin) continue;
    LLAVA_ASSERT(span.begin >= begin, "a reused prefix never ends inside an image");
    tail.media_spans.push_back({span.begin - begin, span.len, span.item, span.layout});
  }
  return tail;
}

at::Tensor GenerationRun::prefill() {
  std::int64_t longest = 0;
  for (const CollateRow& input : inputs_) {
    longest = std::max(longest, static_cast<std::int64_t>(input.prompt->ids.size()));
    stats_.prompt_tokens += static_cast<std::int64_t>(input.prompt->ids.size());
    for (const MediaSpan& span : input.prompt->media_spans)
      stats_.image_tokens += static_cast<std::int64_t>(span.len);
  }
  std::vector<CollateRow> rows(inputs_.begin(), inputs_.end());
  Prompt tail;
  if (cache_ != nullptr) {
    LLAVA_ASSERT(rows.size() == 1, "a caller's cache holds one row");
    const std::int64_t stored = cache_->max_length();
    LLAVA_ASSERT(stored < longest, "at least one prompt token is computed");
    stats_.reused_tokens = stored;
    tail = tail_of(*rows[0].prompt, static_cast<std::size_t>(stored));
    // Media of the tail only, in the order of its spans.
    std::vector<at::Tensor> media;
    if (rows[0].embeds.defined()) rows[0].embeds = rows[0].embeds.slice(0, stored);
    for (MediaSpan& span : tail.media_spans) {
      if (rows[0].embeds.defined()) break;
      media.push_back(rows[0].media.at(span.item));
      span.item = media.size() - 1;
    }
    rows[0].media = std::move(media);
    rows[0].prompt = &tail;
  } else {
    own_cache_ = model_.make_cache(static_cast<std::int64_t>(rows.size()),
                                   longest + options_.sampling.max_new_tokens);
    cache_ = own_cache_.get();
  }
  const MultimodalBatch batch = collate(rows, model_.config());
  const at::Tensor hidden = model_.decode(model_.embed(batch), batch, cache_);  // [B,T,D]
  const at::Tensor last = (batch.lengths - 1).to(hidden.device());
  const at::Tensor picked =
      hidden.gather(1, last.view({-1, 1, 1}).expand({-1, 1, hidden.size(2)})).squeeze(1);  // [B,D]
  return model_.logits(picked);
}

at::Tensor GenerationRun::step(const std::vector<std::int64_t>& ids) {
  MultimodalBatch batch;
  const auto n = static_cast<std::int64_t>(rows_.size());
  batch.ids = at::empty({n, 1}, at::kLong);
  batch.positions = at::empty({n, 1}, at::kLong);
  batch.lengths = at::ones({n}, at::kLong);
  for (std::int64_t i = 0; i < n; ++i) {
    Row& row = rows_[static_cast<std::size_t>(i)];
    batch.ids.data_ptr<std::int64_t>()[i] = ids[static_cast<std::size_t>(i)];
    batch.positions.data_ptr<std::int64_t>()[i] = row.next_position++;
  }
  const at::Tensor hidden = model_.decode(model_.embed(batch), batch, cache_);
  return model_.logits(hidden.squeeze(1));
}

/// One id for each row; rows that are done repeat their last one, whose result is thrown away.
std::vector<std::int64_t> GenerationRun::draw(const at::Tensor& logits) {
  const at::Tensor table = logits.to(at::TensorOptions().dtype(at::kFloat).device(at::kCPU)).contiguous();
  const auto width = static_cast<std::size_t>(table.size(1));
  std::vector<float> scratch(width);
  std::vector<std::int64_t> ids(rows_.size(), 0);
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    Row& row = rows_[i];
    if (row.done) continue;
    const float* begin = table.data_ptr<float>() + i * width;
    std::copy(begin, begin + width, scratch.begin());
    ids[i] = row.sampler.sample(scratch, row.history);
  }
  return ids;
}

void GenerationRun::emit(std::size_t index, const std::string& text) {
  rows_[index].answer.text += text;
  if (options_.on_text && !text.empty()) options_.on_text(index, text);
}

void GenerationRun::finish(std::size_t index, StopReason reason) {
  Row& row = rows_[index];
  if (row.done) return;
  row.done = true;
  row.answer.reason = reason;
  if (reason != StopReason::kStopString) emit(index, row.text.flush());
}

void GenerationRun::accept(std::size_t index, std::int64_t id) {
  Row& row = rows_[index];
  const std::vector<std::int64_t>& stops = options_.sampling.stop_ids;
  if (!options_.sampling.ignore_eos && std::find(stops.begin(), stops.end(), id) != stops.end()) {
    row.answer.stop_id = id;
    return finish(index, StopReason::kStopId);
  }
  row.history.push_back(id);
  row.answer.ids.push_back(id);
  ++stats_.new_tokens;
  emit(index, row.text.push(id));
  if (row.text.stopped()) return finish(index, StopReason::kStopString);
  if (static_cast<std::int64_t>(row.answer.ids.size()) >= options_.sampling.max_new_tokens)
    return finish(index, StopReason::kMaxNewTokens);
  if (options_.context_length > 0 &&
      static_cast<std::int64_t>(row.history.size()) >= options_.context_length)
    finish(index, StopReason::kContextFull);
}

std::vector<Generation> GenerationRun::run() {
  const at::NoGradGuard no_grad;
  check_lengths();
  const auto start = Clock::now();
  at::Tensor logits = prefill();
  std::vector<std::int64_t> ids = draw(logits);
  stats_.prefill_ms = milliseconds_since(start);
  const auto decoding = Clock::now();
  for (;;) {
    for (std::size_t i = 0; i < rows_.size(); ++i)
      if (!rows_[i].done) accept(i, ids[i]);
    if (all_done()) break;
    if (options_.cancel != nullptr && options_.cancel->load()) {
      for (std::size_t i = 0; i < rows_.size(); ++i) finish(i, StopReason::kCancelled);
      break;
    }
    ids = draw(step(ids));
  }
  stats_.decode_ms = milliseconds_since(decoding);
  std::vector<Generation> answers;
  for (Row& row : rows_) answers.push_back(std::move(row.answer));
  return answers;
}

}  // namespace

const char* to_string(StopReason reason) {
  switch (reason) {
    case StopReason::kStopId:
    case StopReason::kStopString:
      return "stop";
    case StopReason::kMaxNewTokens:
      return "length";
    case StopReason::kContextFull:
      return "context";
    case StopReason::kCancelled:
      return "cancelled";
  }
  return "";
}

std::vector<Generation> generate(LlavaModel& model, std::span<const CollateRow> rows,
                                 const GenerateOptions& options, GenerationStats& stats, KvCache* cache) {
  return GenerationRun(model, rows, options, stats, cache).run();
}

}  // namespace llava
