#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "config/media_layout.h"

namespace llava {

/// What a forward pass eats; filled by batch/collate only.   B rows, T tokens (right-padded), M tiles over
/// all rows
struct MultimodalBatch {
  at::Tensor ids;         ///< [B,T] int64; image positions hold any valid id, they are overwritten
  at::Tensor labels;      ///< [B,T] int64, -100 = ignore; undefined when generating
  at::Tensor positions;   ///< [B,T] int64
  at::Tensor lengths;     ///< [B] int64, real tokens of each row
  at::Tensor branch;      ///< [B,T] int32 or undefined (Prompt::branch)
  at::Tensor pixels;      ///< [M,3,H,W] float32, or undefined
  at::Tensor features;    ///< [M,P,C] tower features instead of pixels (cached, frozen tower), or undefined
  at::Tensor rows;        ///< [N,D] finished rows instead of features, or undefined
  at::Tensor embeds;      ///< [B,T,D] in place of media: the prompt's finished embeddings, or undefined
  at::Tensor media_rows;  ///< [N] int64 flat positions (b*T+t) of the N image features, in order; undefined
                          ///< without media
  /// Lengths of the samples that lie in each row one behind the other (packing): each sees itself only, its positions
  /// start at 0 and its first token has no label. Empty: one sample a row.
  std::vector<std::vector<std::int64_t>> pieces;
  std::vector<MediaLayout> media;  ///< of the items, in order; empty: each view's features as they are
};

}  // namespace llava
