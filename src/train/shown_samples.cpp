#include "train/shown_samples.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "model/kv_cache.h"

namespace llava {

namespace {

/// Tokens up to the first trained one, as a prompt to go on from; media after it are left out.
PreparedSample first_question(const PreparedSample& sample, std::size_t length) {
  PreparedSample question;
  question.index = sample.index;
  const Prompt& from = sample.prompt;
  const auto cut = [&](const auto& values) {
    using Values = std::decay_t<decltype(values)>;
    return values.empty() ? Values()
                          : Values(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(length));
  };
  question.prompt.ids = cut(from.ids);
  question.prompt.labels = cut(from.labels);
  question.prompt.positions = cut(from.positions);
  for (const MediaSpan& span : from.media_spans) {
    if (span.begin + span.len > length) break;
    question.prompt.media_spans.push_back(span);
    question.prompt.media_spans.back().item = question.media.size();
    question.media.push_back(sample.media.at(span.item));
  }
  return question;
}

MultimodalBatch one_token(std::int64_t id, std::int64_t position) {
  MultimodalBatch batch;
  batch.ids = at::full({1, 1}, id, at::kLong);
  batch.positions = at::full({1, 1}, position, at::kLong);
  batch.lengths = at::ones({1}, at::kLong);
  return batch;
}

/// The text of tokens as it stands behind the token `before` (-1: none): decoding drops a space in front of
/// the first token it gets.
std::string text_behind(const Tokenizer& tokenizer, std::int64_t before,
                        std::span<const std::int64_t> ids) {
  const std::string alone = tokenizer.decode(ids);
  if (before < 0) return alone;
  std::vector<std::int64_t> joined = {before};
  joined.insert(joined.end(), ids.begin(), ids.end());
  const std::string front = tokenizer.decode({joined.data(), 1}), whole = tokenizer.decode(joined);
  return whole.starts_with(front) ? whole.substr(front.size()) : alone;
}

}  // namespace

OrderedJson describe_sample(const PreparedSample& sample, const Dataset& dataset, TurnMode turns,
                            RecordKind record, const Tokenizer& tokenizer, const char* kind) {
  const Prompt& prompt = sample.prompt;
  std::vector<bool> media(prompt.ids.size(), false);
  for (const MediaSpan& span : prompt.media_spans)
    std::fill_n(media.begin() + static_cast<std::ptrdiff_t>(span.begin), span.len, true);
  const auto kind_of = [&](std::size_t t) {
    return media[t]                                                       ? "media"
           : t < prompt.labels.size() && prompt.labels[t] != kIgnoreIndex ? "trained"
                                                                          : "masked";
  };
  OrderedJson pieces = OrderedJson::array();
  for (std::size_t begin = 0, end = 0; begin < prompt.ids.size(); begin = end) {
    const std::string_view what = kind_of(begin);
    for (end = begin; end < prompt.ids.size() && kind_of(end) == what; ++end) {
    }
    const std::span<const std::int64_t> ids(prompt.ids.data() + begin, end - begin);
    const std::int64_t before = begin > 0 && !media[begin - 1] ? prompt.ids[begin - 1] : -1;
    const std::string text = what == "media" ? fmt::format("{} image tokens", ids.size())
                                             : text_behind(tokenizer, before, ids);
    pieces.push_back({{"text", text}, {"kind", what}});
  }
  OrderedJson images = OrderedJson::array();
  if (const auto loaded = try_outcome([&] { return dataset.load(sample.index, turns, record); }))
    for (const MediaRef& image : loaded.value().images)
      images.push_back(image.name.empty() ? image.path.string() : image.describe());
  return {
      {"kind", kind}, {"sample", dataset.describe(sample.index)}, {"images", images}, {"pieces", pieces}};
}

std::string answer_first_question(
    LlavaModel& model, const PreparedSample& sample,
    const std::function<MultimodalBatch(const std::vector<const PreparedSample*>&)>& make_batch,
    const CheckpointInfo& checkpoint, std::int64_t max_tokens) {
  const at::NoGradGuard no_grad;
  const std::vector<std::int64_t>& labels = sample.prompt.labels;
  const auto trained = [](std::int64_t label) { return label != kIgnoreIndex; };
  const auto first = std::find_if(labels.begin(), labels.end(), trained);
  const auto last = std::find_if_not(first, labels.end(), trained);
  if (first == labels.end() || first == labels.begin()) return "";
  std::vector<std::int64_t> stops = checkpoint.stop_ids;
  stops.push_back(*(last - 1));
  const PreparedSample question = first_question(sample, static_cast<std::size_t>(first - labels.begin()));
  const auto length = static_cast<std::int64_t>(question.prompt.ids.size());
  const auto cache = model.make_cache(1, length + max_tokens);
  MultimodalBatch batch = make_batch({&question});
  batch.labels = at::Tensor();
  std::vector<std::int64_t> answer;
  std::int64_t position = question.prompt.positions.empty() ? length : question.prompt.positions.back() + 1;
  while (static_cast<std::int64_t>(answer.size()) < max_tokens) {
    const at::Tensor hidden = model.decode(model.embed(batch), batch, cache.get());  // [1,T,D]
    const std::int64_t id = model.logits(hidden[0][-1]).argmax(-1).item<std::int64_t>();
    if (std::find(stops.begin(), stops.end(), id) != stops.end()) break;
    answer.push_back(id);
    batch = one_token(id, position++);
  }
  return checkpoint.tokenizer->decode(answer, true);
}

}  // namespace llava
