#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "config/media_layout.h"

namespace llava {

/// Learnt vectors [D] that stand between features; undefined where the model has none.
struct MediaTokens {
  at::Tensor newline, faster;
};

/// The rows of all media in order, [N,D], from the tower's features [M,P,C] of their views (M over all
/// items). `project` is the connector, [m,p,C] -> [m,n,D]. Items with `pool_first` are pooled in front of the connector, all others go through it in one
/// call. Grids must be square: a class token among the features is Error{kUnsupported} where a layout needs
/// a grid. Source: specification 1.4.4, 1.5.3, 1.5.4, 1.6.
at::Tensor media_rows(const at::Tensor& features, const std::vector<MediaLayout>& layouts,
                      const std::function<at::Tensor(const at::Tensor&)>& project,
                      const MediaTokens& tokens);

/// [F,P,C] -> [F,P',C]: every view's square grid pooled.
at::Tensor pool_grids(const at::Tensor& features, PoolMode mode, std::int64_t stride);

}  // namespace llava
