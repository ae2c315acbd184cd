#pragma once
#include "checkpoint/checkpoint.h"
#include "model/llava_model.h"

namespace llava {

/// Whether the checkpoint is a folder of parts that has a tower and no connector yet.
bool needs_new_connector(const CheckpointInfo& checkpoint);

/// The decoder's token embeddings [V,D], not a copy.
at::Tensor token_embeddings(LlavaModel& model);

/// Scales a new connector's last layer so that its outputs for unit-normal features have the standard
/// deviation of the token embeddings. Only for connectors that normalise their input; others depend on the
/// tower's scale.
void match_embedding_scale(LlavaModel& model);

}  // namespace llava
