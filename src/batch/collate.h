#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "model/batch.h"
#include "prompt/prompt.h"

/// The only meeting place of prompt and model: training's loader and the inference runner both come through
/// here.
namespace llava {

/// One row of a batch. `media` holds one tensor per media item of the prompt, in order: pixels
/// [tiles,3,H,W] float32, or tower features [tiles,P,C]; all rows of a batch use the same of the two.
struct CollateRow {
  const Prompt* prompt = nullptr;
  std::vector<at::Tensor> media;
  bool media_are_features = false;
};

/// Right-pads the rows to the longest one (ids with the model's pad id, labels with -100) and lists where
/// the image features go. Image ids that are not rows of the embedding table (the original LLaVA's -200)
/// become 0: they are overwritten by the splice. Error{kInternal}: no rows, media counts that differ from
/// the prompt's spans, or pixels mixed with features.
MultimodalBatch collate(std::span<const CollateRow> rows, const ModelConfig& model);

/// A single prompt without labels, for generation.
MultimodalBatch collate_one(const Prompt& prompt, std::vector<at::Tensor> media, const ModelConfig& model);

}  // namespace llava
