#include "train/plan_advice.h"

#include <vector>

#include "base/fields.h"

namespace llava {

namespace {

/// One way to need less; applying it says how in the config's words, or "" where it is in use already.
using SavingStep = std::string (*)(PlanVariant&);

std::string checkpoint_blocks(PlanVariant& v) {
  if (v.stage.gradient_checkpointing.llm == 1 && v.stage.gradient_checkpointing.vision_tower) return "";
  v.stage.gradient_checkpointing = {1, true};
  return "gradient_checkpointing: true";
}

std::string share_state(PlanVariant& v) {
  if (v.setup.processes == 1 || v.setup.strategy == ShardStrategy::kZero2 ||
      v.setup.strategy == ShardStrategy::kZero3)
    return "";
  v.setup.strategy = ShardStrategy::kZero2;
  return "distributed.strategy: zero2";
}

std::string share_weights(PlanVariant& v) {
  const bool packed = v.setup.quantization.load_in_4bit;
  if (v.setup.processes == 1 || v.setup.strategy == ShardStrategy::kZero3 || packed) return "";
  v.setup.strategy = ShardStrategy::kZero3;
  return "distributed.strategy: zero3";
}

std::string pack_weights(PlanVariant& v) {
  if (!v.stage.lora || v.setup.quantization.load_in_4bit || v.setup.strategy == ShardStrategy::kZero3)
    return "";
  v.setup.quantization.load_in_4bit = v.setup.quantization.bnb_4bit_use_double_quant = true;
  return "quantization: {load_in_4bit: true, bnb_4bit_use_double_quant: true}";
}

std::string small_states(PlanVariant& v) {
  if (v.stage.optim.name != OptimizerKind::kAdamW) return "";
  v.stage.optim.name = OptimizerKind::kAdamW8bit;
  return "optim.name: adamw_8bit";
}

std::string states_elsewhere(PlanVariant& v) {
  if (v.setup.cpu || v.stage.optim.offload == OffloadDevice::kCpu) return "";
  v.stage.optim.offload = OffloadDevice::kCpu;
  return "optim.offload: cpu";
}

}  // namespace

std::string advise_to_fit(PlanVariant variant, std::int64_t rows, double limit,
                          const std::function<double(const PlanVariant&)>& peak) {
  std::vector<std::string> changes;
  const auto answer = [&] { return fmt::format("fits with {}", fmt::join(changes, ", ")); };
  const auto apply = [&](SavingStep step) {
    const std::string change = step(variant);
    if (!change.empty()) changes.push_back(change);
    return !change.empty() && peak(variant) <= limit;
  };
  if (apply(checkpoint_blocks) || apply(share_state)) return answer();
  const std::size_t others = changes.size();
  const StageConfig before = variant.stage;
  for (std::int64_t fewer = rows / 2; fewer >= 1; fewer /= 2) {
    variant.part = static_cast<double>(fewer) / static_cast<double>(rows);
    variant.stage.batch_size = fewer;
    variant.stage.grad_accum = (before.samples_per_step() + fewer - 1) / fewer;
    changes.resize(others);
    changes.push_back(fmt::format("batch_size: {}, grad_accum: {}", fewer, variant.stage.grad_accum));
    variant.setup.several_micro_batches = true;
    if (peak(variant) <= limit) return answer();
  }
  for (const SavingStep step : {share_weights, pack_weights, small_states, states_elsewhere})
    if (apply(step)) return answer();
  const char* last = variant.stage.lora ? "a smaller lora.r" : "lora (with quantization: QLoRA)";
  return fmt::format("does not fit, even with {}; {}, more processes with zero3, or a larger device",
                     changes.empty() ? "the usual changes" : fmt::format("{}", fmt::join(changes, ", ")),
                     last);
}

}  // namespace llava
