#include "train/memory_plan.h"

#include <algorithm>
#include <cmath>

#include "model/fused_block.h"
#include "model/ops.h"
#include "tensor/convert.h"
#include "train/stage_setup.h"

namespace llava {

namespace {

constexpr double kMebibyte = 1024.0 * 1024.0;
/// What a CUDA context, its libraries and the allocator's gaps take.
constexpr double kCudaBytes = 900 * kMebibyte;
/// What a training program has beyond one that has only started: the libraries' buffers, threads and code
/// in use.
constexpr double kTrainingBytes = 90 * kMebibyte;

bool is_block(const std::string& name) { return name.starts_with("language_model.layers."); }

double numel(const NamedParameter& p) { return static_cast<double>(p.tensor.numel()); }
double bytes_of(const NamedParameter& p) { return static_cast<double>(p.tensor.nbytes()); }

double numel_of(const std::vector<NamedParameter>& parameters) {
  double sum = 0;
  for (const NamedParameter& p : parameters) sum += numel(p);
  return sum;
}

bool is_packed_weight(const NamedParameter& p, const QuantizationSettings& quantization) {
  constexpr std::size_t kSuffix = 7;  // ".weight"
  return p.tensor.dim() == 2 && p.name.ends_with("_proj.weight") && is_block(p.name) &&
         quantization.packs(p.name.substr(0, p.name.size() - kSuffix));
}

/// 4 bits, and a scale for 64: float32, or 8 bits with a float32 for 256 of them.
double packed_bytes(double elements, bool double_quant) {
  return elements * (0.5 + (double_quant ? (1 + 4.0 / 256) / 64 : 4.0 / 64));
}

/// float32 moments of AdamW, and its counter.
double moments(double elements) { return 8 * elements + 4; }

double state_bytes(const NamedParameter& p, OptimizerKind kind) {
  const double n = numel(p);
  const bool table = p.name.find("embed_tokens") != std::string::npos;
  const bool head = p.name.find("lm_head") != std::string::npos;
  switch (kind) {
    case OptimizerKind::kAdamW:
      return moments(n);
    case OptimizerKind::kAdamW8bit:
      return n < 4096 || table ? moments(n) : 2 * n + 8 * std::ceil(n / 256) + 4;
    case OptimizerKind::kAdafactor:
      if (p.tensor.dim() < 2) return 4 * n + 4;
      return 4 * (n / static_cast<double>(p.tensor.size(-1)) + n / static_cast<double>(p.tensor.size(-2))) +
             4;
    case OptimizerKind::kMuon:
      return table || head || p.tensor.dim() != 2 ? moments(n) : 4 * n;
    case OptimizerKind::kLion:
    case OptimizerKind::kSgd:
      return 4 * n + (kind == OptimizerKind::kSgd ? 4 : 0);
  }
  return moments(n);
}

bool has_master(const NamedParameter& p, const OptimConfig& config) {
  return p.tensor.element_size() < 4 && config.master_weights;
}

double weight_bytes(const StageShape& shape, const StageConfig& stage, const MemorySetup& setup) {
  const bool zero3 = setup.processes > 1 && setup.strategy == ShardStrategy::kZero3;
  std::set<std::string> trained;
  for (const NamedParameter& p : shape.trained) trained.insert(p.name);
  double whole = 0, blocks = 0;
  for (const NamedParameter& p : shape.all) {
    double bytes = is_packed_weight(p, setup.quantization)
                       ? packed_bytes(numel(p), setup.quantization.bnb_4bit_use_double_quant)
                       : bytes_of(p);
    // training moves a mapped weight to memory of its own; the file's pages were read for that
    if (setup.mapped.contains(p.name) && trained.contains(p.name)) bytes *= 2;
    if (stage.frozen_compute == FrozenCompute::kInt8 && is_block(p.name) && p.tensor.dim() == 2)
      bytes += numel(p);
    (is_block(p.name) && !is_lora_name(p.name) ? blocks : whole) += bytes;
  }
  const double gathered = 2 * blocks / static_cast<double>(shape.model.decoder.num_hidden_layers);
  return whole + (zero3 ? blocks / static_cast<double>(setup.processes) + gathered : blocks);
}

/// Gradients while micro-batches run (`sums`), and at the end of the last backward pass (`all`).
struct GradientBytes {
  double sums = 0, all = 0;
};
GradientBytes gradient_bytes(const StageShape& shape, const MemorySetup& setup) {
  double wide = 0, fresh = 0, largest = 0;
  for (const NamedParameter& p : shape.trained) {
    wide += 4 * numel(p), fresh += bytes_of(p);
    if (p.tensor.element_size() < 4) largest = std::max(largest, 4 * numel(p));
  }
  const auto parts = static_cast<double>(setup.processes);
  if (setup.processes > 1) {
    const bool cut = setup.strategy == ShardStrategy::kZero2 || setup.strategy == ShardStrategy::kZero3;
    const double kept = cut ? wide / parts : wide;
    const double buckets = std::min(wide, 4.0 * 25 * kMebibyte);  // two that travel, with what comes back
    return {kept, kept + buckets};
  }
  const double sums = setup.several_micro_batches ? wide : 0.0;
  if (largest == 0) return {sums, sums + wide};  // float32: the first sum is the gradient itself
  // 16-bit gradients on a CPU are made in float32 and rounded; the gaps that this leaves in the heap were
  // measured to be about as large as what stays (bench/plan_check.py)
  const double gaps = setup.cpu ? fresh : 0;
  return {sums, (setup.several_micro_batches ? wide + fresh : std::max(fresh, wide)) + gaps + largest};
}

struct HeadBytes {
  double loss = 0;      ///< while the loss is computed
  double kept = 0;      ///< until the backward pass
  double backward = 0;  ///< in it
};

HeadBytes head_bytes(const StageShape& shape, const StageConfig& stage, const MicroBatch& batch,
                     const MemorySetup& setup) {
  HeadBytes head;
  if (stage.objective == Objective::kAnswerEmbedding) return head;
  const DecoderConfig& d = shape.model.decoder;
  const double vocabulary = static_cast<double>(d.vocab_size), width = static_cast<double>(d.hidden_size);
  const double rows = std::min(batch.supervised_tokens, static_cast<double>(loss_chunk(d.vocab_size)));
  const auto dtype = dtype_from_string(stage.dtype);
  const bool widened =
      setup.cpu && dtype != c10::kFloat && fused::compute_type(dtype, c10::kCPU) == c10::kFloat;
  const double copies = setup.cpu ? (dtype == c10::kFloat || widened ? 1 : 1.5) : 3;
  head.loss = rows * vocabulary * 4 * copies + (widened ? vocabulary * width * 4 : 0);
  head.kept = 3 * batch.supervised_tokens * width * 4;
  const bool trains =
      shape.trains("lm_head.") || (d.tie_word_embeddings && shape.trains("language_model.embed_tokens."));
  if (trains) head.kept += vocabulary * width * 4, head.backward = vocabulary * width * 4;
  return head;
}

double overhead_bytes(const StageShape& shape, const StageConfig& stage, const MemorySetup& setup,
                      double optimizer) {
  double bytes = setup.cpu ? setup.program_bytes + kTrainingBytes : kCudaBytes;
  if (stage.ema.ema_decay > 0) bytes += 4 * numel_of(shape.trained);
  if (!setup.cpu) return bytes;
  if (shape.model.tower)
    bytes += setup.views_ahead * 3 * std::pow(static_cast<double>(shape.model.tower->input_size), 2) * 4;
  double trained = 0;
  for (const NamedParameter& p : shape.trained) trained += bytes_of(p);
  if (setup.copies_state) bytes += optimizer + trained;
  return bytes + setup.cached_bytes;
}

}  // namespace

bool StageShape::trains(const char* prefix) const {
  return std::any_of(trained.begin(), trained.end(),
                     [&](const NamedParameter& p) { return p.name.starts_with(prefix); });
}

double optimizer_bytes(const std::vector<NamedParameter>& trained, const OptimConfig& config) {
  double bytes = 0;
  for (const NamedParameter& p : trained)
    bytes += state_bytes(p, config.name) + (has_master(p, config) ? 4 * numel(p) : 0);
  return bytes;
}

MemoryPlan plan_memory(const StageShape& shape, const StageConfig& stage, const MicroBatch& batch,
                       const MemorySetup& setup) {
  MemoryPlan plan;
  plan.weights = weight_bytes(shape, stage, setup);
  const bool here = setup.cpu || stage.optim.offload == OffloadDevice::kNone;
  const bool cut = setup.processes > 1 && setup.strategy != ShardStrategy::kDdp;
  if (here)
    plan.optimizer =
        optimizer_bytes(shape.trained, stage.optim) / (cut ? static_cast<double>(setup.processes) : 1.0);
  const GradientBytes gradients = gradient_bytes(shape, setup);
  const ActivationPlan activations = plan_activations(shape, stage, batch, setup);
  const HeadBytes head = head_bytes(shape, stage, batch, setup);
  plan.overhead = overhead_bytes(shape, stage, setup, plan.optimizer);
  plan.gradients = here ? gradients.all : std::max(0.0, gradients.all - gradients.sums);
  plan.activations = std::max(activations.kept + activations.moment, activations.tower_run);
  plan.head = head.loss + head.kept + head.backward;
  const double always = plan.weights + plan.optimizer + plan.overhead;
  const double moment =
      setup.cpu ? activations.moment + head.loss : 0;  // buffers that a CPU keeps between steps
  const double loss = activations.kept + std::max(activations.moment, head.loss) + head.kept;
  const double forward = gradients.sums + std::max(activations.tower_run,
                                                   std::max(loss, activations.kept + head.kept + moment));
  const double backward = gradients.all + head.backward + moment;
  plan.peak = always + std::max(forward, backward);
  return plan;
}

}  // namespace llava
