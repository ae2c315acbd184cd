#include <algorithm>
#include <cmath>

#include "model/fused_block.h"
#include "tensor/convert.h"
#include "train/memory_plan.h"
#include "train/stage_setup.h"

namespace llava {

namespace {

/// Sizes of a decoder block as numbers.
struct BlockSize {
  explicit BlockSize(const DecoderConfig& d)
      : width(static_cast<double>(d.hidden_size)),
        q(static_cast<double>(d.num_attention_heads * d.head_dim)),
        kv(static_cast<double>(d.num_key_value_heads * d.head_dim)),
        ffn(static_cast<double>(d.intermediate_size)),
        heads(static_cast<double>(d.num_attention_heads)) {}
  double width, q, kv, ffn, heads;
  double columns() const { return q + 2 * kv; }
};

bool decoder_is_packed(const MemorySetup& setup) {
  return setup.quantization.packs("language_model.layers.0.mlp.up_proj");
}

/// Whether the blocks run as fused_block.h's one operation (its block_fits, from configs).
bool runs_fused(const StageShape& shape, const StageConfig& stage, const MemorySetup& setup) {
  const DecoderConfig& d = shape.model.decoder;
  const bool plain_pairs = !stage.lora || (stage.lora->dropout == 0 && !stage.lora->use_dora);
  return setup.cpu && d.hidden_act == Activation::kSilu && d.head_dim % 16 == 0 &&
         stage.dtype != "float16" && !decoder_is_packed(setup) &&
         stage.frozen_compute == FrozenCompute::kModel && plain_pairs;
}

/// Bytes a token that a block of LibTorch operations keeps (model/decoder_stack.cpp): norms keep their
/// inputs, attention q, k, v and its output, the gate both products; products keep their input where a
/// matrix or a pair trains.
double plain_block_bytes(const StageShape& shape, const StageConfig& stage, const MemorySetup& setup) {
  const BlockSize b(shape.model.decoder);
  const double size = activation_size(stage);
  const bool wide = setup.cpu && size == 4;  // one-pass norms and gates
  double bytes = (2 * b.width + 2 * b.q + 2 * b.kv + (wide ? 2 : 3) * b.ffn) * size;
  if (!wide) bytes += 2 * 4 * b.width;  // float32 inside norms
  const bool matrices = shape.trains("language_model.layers.") && !stage.lora;
  if (matrices) return bytes + (3 * b.width + b.q + b.ffn) * size;
  if (!stage.lora) return bytes;
  const double pair = stage.lora->autocast_adapter_dtype ? 4 : size;
  const double inputs = 5 * b.width + b.q + b.ffn;  // of the seven layers
  const bool shared = pair == size && stage.lora->dropout == 0;
  bytes += shared ? (2 * b.width + b.q + b.ffn) * pair : inputs * pair;
  if (stage.lora->dropout > 0) bytes += inputs * (pair + (pair == size ? 0.0 : pair) + 1);  // with masks
  return bytes + 7 * static_cast<double>(stage.lora->r) * pair;
}

/// Bytes a token that a fused block keeps: its input, the sum after attention, q, k and v, attention's
/// output, both products of the gate, and a number a head.
double fused_block_bytes(const BlockSize& b, double size) {
  return (2 * b.width + b.columns() + b.q + 2 * b.ffn) * size + 4 * b.heads;
}

/// Memory that fused blocks share: float32 rows, and the widest group of matrices where they are not used
/// in place.
double fused_moment(const StageShape& shape, const StageConfig& stage, double tokens) {
  const BlockSize b(shape.model.decoder);
  const bool half = stage.dtype != "float32";
  double row = 3 * b.width + 3 * b.ffn + std::max({b.ffn, b.q, b.width}) + std::max(b.ffn, b.width);
  if (half) row += 2 * b.width + b.columns() + b.q + 2 * b.ffn;
  const bool direct = !half && !stage.lora;
  return 4 * (tokens * row + (direct ? 0 : 2 * b.ffn * b.width));
}

/// Bytes of a tower block for each row, and of what it passes on.
struct TowerBytes {
  double trained = 0, running = 0, state = 0;
};
TowerBytes tower_bytes(const TowerConfig& t, const StageConfig& stage, const MemorySetup& setup) {
  const auto dtype = dtype_from_string(stage.dtype);
  const double size =
      setup.cpu && fused::compute_type(dtype, c10::kCPU) == c10::kFloat ? 4 : activation_size(stage);
  const double width = static_cast<double>(t.hidden_size), ffn = static_cast<double>(t.intermediate_size);
  const double quick = t.hidden_act == Activation::kQuickGelu ? 3 : 2;
  return {(9 * width + quick * ffn) * size, (3 * width + 2 * ffn) * size, width * size};
}

void add_tower(const StageShape& shape, const StageConfig& stage, const MicroBatch& batch,
               const MemorySetup& setup, ActivationPlan& plan) {
  const TowerConfig& t = *shape.model.tower;
  const TowerBytes bytes = tower_bytes(t, stage, setup);
  const double rows = batch.views * static_cast<double>(t.num_patches() + (t.has_cls() ? 1 : 0));
  const auto layers = static_cast<double>(t.num_hidden_layers);
  const double pixels = batch.views * 3 * std::pow(static_cast<double>(t.input_size), 2) * 4;
  if (!shape.trains("vision_tower.")) {
    // all blocks' outputs are there at once, as some connectors take several
    plan.tower_run = rows * ((layers + 1) * bytes.state + bytes.running) + 2 * pixels;
    return;
  }
  const bool again = stage.gradient_checkpointing.vision_tower;
  const double states = stage.gradient_checkpointing.offload && !setup.cpu ? std::min(layers, 2.0) : layers;
  plan.kept += rows * (again ? states * bytes.state : layers * bytes.trained) + 2 * pixels;
  plan.moment = std::max(plan.moment, rows * (again ? bytes.trained + bytes.running : bytes.running));
}

}  // namespace

double activation_size(const StageConfig& stage) { return stage.dtype == "float32" ? 4 : 2; }

ActivationPlan plan_activations(const StageShape& shape, const StageConfig& stage, const MicroBatch& batch,
                                const MemorySetup& setup) {
  const DecoderConfig& d = shape.model.decoder;
  const BlockSize b(d);
  const bool fused = runs_fused(shape, stage, setup);
  const double tokens = fused ? batch.tokens : batch.padded_tokens, size = activation_size(stage);
  const auto layers = static_cast<double>(d.num_hidden_layers);
  ActivationPlan plan;
  const double block =
      tokens * (fused ? fused_block_bytes(b, size) : plain_block_bytes(shape, stage, setup));
  const bool zero3 = setup.processes > 1 && setup.strategy == ShardStrategy::kZero3;
  const double every = zero3 ? 1 : static_cast<double>(stage.gradient_checkpointing.llm);
  const double again = every > 0 ? std::ceil(layers / every) : 0;
  // inputs that wait in the host's memory: the one that leaves and the one that comes
  const double inputs = stage.gradient_checkpointing.offload && !setup.cpu ? std::min(again, 2.0) : again;
  plan.kept = (layers - again) * block + inputs * tokens * b.width * size;
  if (again > 0) plan.moment = block;  // of the one that runs again
  plan.moment += fused ? fused_moment(shape, stage, tokens) : tokens * (4 * b.ffn + 4 * b.width) * size;
  if (decoder_is_packed(setup)) plan.moment += 4 * b.ffn * b.width;  // one matrix as numbers
  plan.kept += batch.padded_tokens * b.width * size * 4 + batch.mask_elements * 4;
  if (stage.objective == Objective::kAnswerEmbedding) plan = {};
  if (!shape.model.tower || batch.views == 0) return plan;
  if (shape.trains("mm_projector.")) {
    const auto rows = batch.views * static_cast<double>(shape.model.tower->num_features());
    plan.kept += rows * (static_cast<double>(shape.model.connector.in_size) + 3 * b.width) * 4;
  }
  if (!setup.cached_features) add_tower(shape, stage, batch, setup, plan);
  return plan;
}

}  // namespace llava
