#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "model/batch.h"
#include "prompt/prompt.h"

/// The only meeting place of prompt and model: training's loader and the inference runner both come through
/// here.
namespace llava {

/// How far media have come before the batch.
enum class MediaForm {
  kPixels,    ///< [views,3,H,W] float32
  kFeatures,  ///< [views,P,C] of the tower
  kRows,      ///< [n,D] as they stand in the prompt
};

/// One row of a batch. `media` holds one tensor per media item of the prompt, in order; all rows of a batch
/// have the same form.
struct CollateRow {
  const Prompt* prompt = nullptr;
  std::vector<at::Tensor> media;
  MediaForm form = MediaForm::kPixels;
  at::Tensor embeds;  ///< [T,D] of the whole prompt in place of `media` (LLaVA-Mini); all rows or none
};

/// Right-pads the rows to the longest one (ids with the model's pad id, labels with -100) and lists where
/// the image features go. Image ids that are not rows of the embedding table (the original LLaVA's -200)
/// become 0: they are overwritten by the splice. Error{kInternal}: no rows, media counts that differ from
/// the prompt's spans, or forms of media mixed.
MultimodalBatch collate(std::span<const CollateRow> rows, const ModelConfig& model);

/// The rows one behind the other in a single row without padding, each seeing itself only (MultimodalBatch::pieces):
/// positions start anew, and no sample predicts the next one's first token. Error{kInternal} for prompts with
/// branches or finished embeddings, else as collate.
MultimodalBatch collate_packed(std::span<const CollateRow> rows, const ModelConfig& model);

/// A single prompt without labels, for generation.
MultimodalBatch collate_one(const Prompt& prompt, std::vector<at::Tensor> media, const ModelConfig& model);

}  // namespace llava
