#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "config/gradient_checkpointing.h"
#include "model/llava_model.h"

namespace llava {

/// One block of a decoder or a tower.
using Block = std::function<at::Tensor(const at::Tensor&)>;

/// block(x), keeping nothing for the backward pass but `x`, the block itself and the state of the random
/// generator; the backward pass runs the block again under that state (training.md §2.8). Gradients equal those
/// of block(x) bit for bit, dropout included, of parameters and of `x`. Parameters of the block get theirs even
/// where `x` wants none. Gradients of parameters arrive in `.grad` during the outer backward pass. The block
/// must be a function of `x`, of parameters and of random numbers only, and must live as long as the graph
/// (it is copied). Without a grad mode this is block(x). `offload`: an `x` on a GPU is kept in the host's page-locked
/// memory and comes back for the backward pass; the copies go in the device's own order of work.
at::Tensor checkpointed(const Block& block, const at::Tensor& x, bool offload = false);

/// Makes the model's blocks run as `policy` says. `trained` are the stage's parameters: a frozen block whose input
/// wants no gradient keeps nothing anyway and is not run twice. Replaces earlier runners.
void set_checkpointing(LlavaModel& model, const GradientCheckpointing& policy,
                       const std::vector<NamedParameter>& trained);

}  // namespace llava
