#include "cli/train_plan.h"

#include <fmt/format.h>

#include <cmath>

#include "base/progress.h"

namespace llava {

namespace {

/// 665298 -> "665,298".
std::string grouped(double number) {
  const std::string digits = fmt::format("{:.0f}", number);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}
std::string grouped(std::int64_t number) { return grouped(static_cast<double>(number)); }

std::string duration(double days) {
  if (days >= 2) return fmt::format("{:.1f} days", days);
  const double hours = days * 24;
  return hours >= 1 ? fmt::format("{:.1f} h", hours) : fmt::format("{:.1f} min", hours * 60);
}

std::string memory_text(const RunPlan& run, const StagePlan& p) {
  const MemoryPlan& m = p.memory;
  std::string text = fmt::format("  memory of a process: {}", format_bytes(m.peak));
  if (run.device_bytes > 0)
    text += fmt::format(" of {}: {}", format_bytes(run.device_bytes),
                        p.fits                ? "fits"
                        : run.device == "cpu" ? "does not fit"
                                              : "does not fit (95 % are reckoned with)");
  text += fmt::format(
      ", micro-batches of {}\n"
      "    weights {}, gradients {}, optimizer {}, activations {}, head {}, overhead {}; not all at once\n",
      p.micro_batch, format_bytes(m.weights), format_bytes(m.gradients), format_bytes(m.optimizer),
      format_bytes(m.activations), format_bytes(m.head), format_bytes(m.overhead));
  if (!p.advice.empty()) text += fmt::format("    {}\n", p.advice);
  return text;
}

std::string stage_text(const RunPlan& run, const StagePlan& p) {
  std::string text = fmt::format(
      "stage {}: {} samples, {} an epoch, {} steps of {}{}\n"
      "  trains: vision tower {}, connector {}, language model {}, LoRA {} parameters\n"
      "  tokens: {}, {} of them supervised; {} views of images\n",
      p.name, grouped(p.samples), grouped(p.samples_per_epoch), grouped(p.steps), p.samples_per_step,
      p.expected ? " (as expected: the data are not here)" : "", grouped(p.trained_tower),
      grouped(p.trained_connector), grouped(p.trained_decoder), grouped(p.trained_lora), grouped(p.tokens),
      grouped(p.supervised_tokens), grouped(p.views));
  if (p.tokens_first_step > 0)
    text += fmt::format("  first step: {} tokens ({} with padding)\n", p.tokens_first_step,
                        p.padded_tokens_first_step);
  text += memory_text(run, p);
  text += fmt::format("  work: {:.3g} FLOP", p.flops);
  if (p.recomputed_flops > 0) text += fmt::format(" and {:.3g} again", p.recomputed_flops);
  if (p.days > 0) text += fmt::format("; {} at {:.0f} % MFU", duration(p.days), 100 * run.mfu);
  return text + "\n";
}

}  // namespace

std::string plan_text(const RunPlan& plan) {
  std::string text =
      fmt::format("{}{} on {} x {}", plan.model, plan.model_here ? "" : " (recipe; the model is not here)",
                  plan.processes, plan.device);
  if (!plan.strategy.empty()) text += ", " + plan.strategy;
  text += "\n";
  double days = 0;
  bool fits = true;
  for (const StagePlan& stage : plan.stages) {
    text += stage_text(plan, stage);
    days += stage.days;
    fits &= stage.fits;
  }
  if (plan.stages.size() > 1 && days > 0)
    text += fmt::format("all stages: {}{}\n", duration(days), fits ? "" : "; not all fit");
  return text;
}

OrderedJson plan_json(const RunPlan& run, const StagePlan& p) {
  const MemoryPlan& m = p.memory;
  return {{"stage", p.name},
          {"model", run.model},
          {"model_here", run.model_here},
          {"data_here", !p.expected},
          {"device", run.device},
          {"device_bytes", std::llround(run.device_bytes)},
          {"processes", run.processes},
          {"strategy", run.strategy},
          {"samples", p.samples},
          {"samples_per_epoch", p.samples_per_epoch},
          {"samples_per_step", p.samples_per_step},
          {"micro_batch", p.micro_batch},
          {"steps", p.steps},
          {"trained_parameters",
           {{"vision_tower", p.trained_tower},
            {"mm_projector", p.trained_connector},
            {"language_model", p.trained_decoder},
            {"lora", p.trained_lora}}},
          {"tokens", std::llround(p.tokens)},
          {"supervised_tokens", std::llround(p.supervised_tokens)},
          {"views", std::llround(p.views)},
          {"tokens_first_step", p.tokens_first_step},
          {"padded_tokens_first_step", p.padded_tokens_first_step},
          {"predicted_peak_bytes", p.predicted_bytes},
          {"predicted_bytes",
           {{"weights", std::llround(m.weights)},
            {"gradients", std::llround(m.gradients)},
            {"optimizer", std::llround(m.optimizer)},
            {"activations", std::llround(m.activations)},
            {"head", std::llround(m.head)},
            {"overhead", std::llround(m.overhead)}}},
          {"fits", p.fits},
          {"advice", p.advice},
          {"flops", p.flops},
          {"recomputed_flops", p.recomputed_flops},
          {"mfu", run.mfu},
          {"days", p.days}};
}

}  // namespace llava
