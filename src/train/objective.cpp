#include "train/objective.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "prompt/prompt.h"

namespace llava {

namespace {

/// Rows of a batch that each media feature belongs to, [N].
at::Tensor rows_of_features(const MultimodalBatch& batch) {
  return batch.media_rows.div(batch.ids.size(1), "floor");
}

/// [R,V] float32: each row's labelled tokens, evenly weighted, summing to 1; rows without labels or without
/// media are dropped, `rows` names those kept.
at::Tensor target_words(const MultimodalBatch& batch, std::int64_t vocabulary,
                        std::vector<std::int64_t>& rows) {
  const at::Tensor owners = rows_of_features(batch);
  std::vector<bool> has_media(static_cast<std::size_t>(batch.ids.size(0)));
  for (std::int64_t i = 0; i < owners.numel(); ++i)
    has_media[static_cast<std::size_t>(owners.data_ptr<std::int64_t>()[i])] = true;
  std::vector<at::Tensor> targets;
  for (std::int64_t b = 0; b < batch.ids.size(0); ++b) {
    if (!has_media[static_cast<std::size_t>(b)]) continue;
    const at::Tensor labels = batch.labels[b].slice(0, 1);
    const at::Tensor ids = labels.masked_select(labels.ne(kIgnoreIndex));
    if (ids.numel() == 0) continue;
    const at::Tensor row = at::zeros({vocabulary}, at::kFloat).index_fill_(0, ids, 1.0);
    targets.push_back(row / row.sum());
    rows.push_back(b);
  }
  return targets.empty() ? at::Tensor() : at::stack(targets);
}

LlavaModel::Loss bag_of_words_loss(LlavaModel& model, const MultimodalBatch& batch) {
  if (!batch.media_rows.defined()) return {at::zeros({}, at::kFloat), 0};
  std::vector<std::int64_t> rows;
  const std::int64_t vocabulary = model.config().decoder.vocab_size;
  const at::Tensor targets = target_words(batch, vocabulary, rows);
  if (rows.empty()) return {at::zeros({}, at::kFloat), 0};
  const at::Tensor features = batch.features.defined() ? batch.features : model.encode_vision(batch.pixels);
  const at::Tensor projected = model.project(features).flatten(0, 1);  // [N,D]
  const at::Tensor owners = rows_of_features(batch);
  at::Tensor sum = at::zeros({}, at::kFloat);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const at::Tensor own = owners.eq(rows[r]).nonzero().squeeze(1).to(projected.device());
    const at::Tensor scores = model.logits(projected.index_select(0, own)).to(at::kFloat);  // [n,V]
    const at::Tensor pooled = at::logsumexp(scores, 0) - std::log(static_cast<double>(own.numel()));
    sum = sum - (targets[static_cast<std::int64_t>(r)].to(pooled.device()) * at::log_softmax(pooled, 0))
                    .sum()
                    .to(sum.device());
  }
  return {sum, static_cast<std::int64_t>(rows.size())};
}

}  // namespace

LlavaModel::Loss objective_loss(LlavaModel& model, const MultimodalBatch& batch, Objective objective) {
  switch (objective) {
    case Objective::kLm:
      return model.loss(batch);
    case Objective::kBagOfWords:
      return bag_of_words_loss(model, batch);
  }
  LLAVA_ASSERT(false, "unknown objective");
  return {};
}

std::int64_t count_terms(const std::vector<std::int64_t>& labels, bool has_media, Objective objective) {
  // The first token is never predicted, so its label does not count.
  const auto count = labels.empty() ? 0 : std::count_if(labels.begin() + 1, labels.end(), [](auto l) {
    return l != kIgnoreIndex;
  });
  return objective == Objective::kLm ? static_cast<std::int64_t>(count)
                                     : static_cast<std::int64_t>(has_media && count > 0);
}

}  // namespace llava
