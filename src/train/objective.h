#pragma once
#include <ATen/core/Tensor.h>

#include "config/stage_config.h"
#include "model/llava_model.h"

namespace llava {

/// What a stage minimises: the sum over the batch and the number of terms in it.
///  lm            next-token cross-entropy at labelled tokens (LlavaModel::loss)
///  bag_of_words  the connector alone, without a decoder pass: every image feature is scored against the
///  (centred) token
///                embeddings, the features of a row are pooled by log-mean-exp, and the pooled scores
///                should predict the row's distinct answer tokens. Terms are rows with images. Aligns a new
///                connector cheaply.
LlavaModel::Loss objective_loss(LlavaModel& model, const MultimodalBatch& batch, Objective objective);

/// Terms of a row's labels under that objective, so that a step's denominator is known before its first
/// backward.
std::int64_t count_terms(const std::vector<std::int64_t>& labels, bool has_media, Objective objective);

}  // namespace llava
