#include "train/objective.h"

#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "prompt/prompt.h"

namespace llava {

namespace {

/// Rows of a batch that each media feature belongs to, [N].
at::Tensor rows_of_features(const MultimodalBatch& batch) {
  return batch.media_rows.div(batch.ids.size(1), "floor");
}

constexpr double kLengthWeight = 0.1;

/// 1 - cosine to the row's direction, and how far the length is from a token embedding's: [n].
at::Tensor misses(const at::Tensor& outputs, const at::Tensor& direction) {
  const at::Tensor length = outputs.norm(2, -1);
  const at::Tensor cosine = outputs.matmul(direction) / length.clamp_min(1e-6);
  return 1 - cosine + kLengthWeight * (length - 1).square();
}

LlavaModel::Loss answer_embedding_loss(LlavaModel& model, const MultimodalBatch& batch,
                                       const AnswerEmbeddings& embeddings, const at::Tensor& answers) {
  if (!batch.media_rows.defined()) return {at::zeros({}, at::kFloat), 0};
  const at::Tensor features = batch.features.defined() ? batch.features : model.encode_vision(batch.pixels);
  const at::Tensor projected = model.project(features);  // [M,n,D]
  const std::int64_t per_tile = projected.size(1);
  const at::Tensor outputs = embeddings.centred(projected.flatten(0, 1));  // [N,D]
  const at::Tensor owners = rows_of_features(batch);
  const bool class_token = model.config().connector.class_token;
  at::Tensor sum = at::zeros({}, outputs.options());
  std::int64_t rows = 0;
  for (std::int64_t b = 0; b < batch.ids.size(0); ++b) {
    const at::Tensor own = owners.eq(b).nonzero().squeeze(1);
    if (own.numel() == 0 || !batch.labels[b].slice(0, 1).ne(kIgnoreIndex).any().item<bool>()) continue;
    const at::Tensor miss =
        misses(outputs.index_select(0, own.to(outputs.device())), answers[b].to(outputs.device()))
            .view({-1, per_tile});
    sum = sum + (class_token ? miss.slice(1, 0, 1).mean() + miss.slice(1, 1).mean() : miss.mean());
    ++rows;
  }
  return {sum, rows};
}

}  // namespace

LlavaModel::Loss objective_loss(LlavaModel& model, const MultimodalBatch& batch, Objective objective,
                                const AnswerEmbeddings* embeddings, const at::Tensor& answers) {
  switch (objective) {
    case Objective::kLm:
      return model.loss(batch);
    case Objective::kAnswerEmbedding:
      LLAVA_ASSERT(embeddings != nullptr && answers.defined(), "answer_embedding needs directions");
      return answer_embedding_loss(model, batch, *embeddings, answers);
    case Objective::kDpo:
    case Objective::kKto:
    case Objective::kGrpo:
      break;  // these compare answers: StepObjective
  }
  LLAVA_ASSERT(false, "not a loss of single rows");
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
