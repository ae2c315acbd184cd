#pragma once
#include <ATen/core/Tensor.h>

#include "config/stage_config.h"
#include "model/llava_model.h"
#include "train/answer_embeddings.h"

namespace llava {

/// What a stage minimises: the sum over the batch and the number of terms in it.
///  lm                next-token cross-entropy at labelled tokens (LlavaModel::loss)
///  answer_embedding  the connector alone, without a decoder pass: every image feature should point where
///  the words of
///                    the row's answers lie (AnswerEmbeddings) and be about as long as a token's embedding.
///                    A class token counts as much as all patches. Terms are rows with images and labels.
///                    Aligns a new connector in minutes.
/// `answers`: a direction [B,D] for each row; used by answer_embedding only.
LlavaModel::Loss objective_loss(LlavaModel& model, const MultimodalBatch& batch, Objective objective,
                                const AnswerEmbeddings* embeddings, const at::Tensor& answers);

/// Terms of a row's labels under that objective, so that a step's denominator is known before its first
/// backward.
std::int64_t count_terms(const std::vector<std::int64_t>& labels, bool has_media, Objective objective);

}  // namespace llava
