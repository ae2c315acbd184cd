#include "train/metrics.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <sys/resource.h>

#include <algorithm>

#include "base/progress.h"

namespace llava {

namespace {

double per_second(std::int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

}  // namespace

OrderedJson to_json(const StepMetrics& m) {
  OrderedJson json = {{"step", m.step},
                      {"stage", m.stage},
                      {"loss", m.loss},
                      {"grad_norm", m.grad_norm},
                      {"grad_norm_clipped", m.grad_norm * m.clip_coefficient},
                      {"clip_coefficient", m.clip_coefficient},
                      {"lr", m.lr}};
  for (const auto& [pattern, lr] : m.group_lr) json["lr/" + pattern] = lr;
  json["samples"] = m.samples;
  json["tokens"] = m.tokens;
  json["supervised_tokens"] = m.supervised_tokens;
  json["images"] = m.images;
  json["step_seconds"] = m.step_seconds;
  json["data_wait_seconds"] = m.data_wait_seconds;
  json["data_wait_fraction"] = m.step_seconds > 0 ? m.data_wait_seconds / m.step_seconds : 0;
  json["samples_per_second"] = per_second(m.samples, m.step_seconds);
  json["tokens_per_second"] = per_second(m.tokens, m.step_seconds);
  json["supervised_tokens_per_second"] = per_second(m.supervised_tokens, m.step_seconds);
  json["images_per_second"] = per_second(m.images, m.step_seconds);
  if (m.save_seconds > 0) json["save_seconds"] = m.save_seconds;
  json["peak_memory_bytes"] = m.peak_memory_bytes;
  json["model_flops"] = m.model_flops;
  json["mfu"] = m.mfu;
  json["hfu"] = m.hfu;
  if (m.skipped) json["skipped"] = true;
  for (const auto& [name, value] : m.extra) json[name] = value;
  return json;
}

OrderedJson to_json(const EvalMetrics& m) {
  return {{"step", m.step},
          {"stage", m.stage},
          {"eval_loss", m.loss},
          {"eval_token_accuracy", m.token_accuracy},
          {"eval_samples", m.samples},
          {"eval_tokens", m.tokens},
          {"eval_seconds", m.seconds},
          {"eval_best", m.best}};
}

MetricsWriter::MetricsWriter(const std::filesystem::path& folder, std::int64_t first_step, bool tensorboard)
    : lines_(folder / "metrics.jsonl", first_step) {
  if (tensorboard) events_.emplace(folder, first_step);
}

void MetricsWriter::write_line(const OrderedJson& line, const char* group) {
  lines_.write(line);
  if (!events_) return;
  std::vector<std::pair<std::string, double>> scalars;
  for (const auto& [key, value] : line.items())
    if (value.is_number() && key != "step") scalars.emplace_back(group + key, value.get<double>());
  events_->write(line["step"].get<std::int64_t>(), scalars);
}

void MetricsWriter::write(const StepMetrics& metrics) { write_line(to_json(metrics), "train/"); }
void MetricsWriter::write_validation(const EvalMetrics& metrics) { write_line(to_json(metrics), "eval/"); }

std::string StepSummary::add(const StepMetrics& m) {
  constexpr double kKeep = 0.9;  // a mean over about ten steps, weighted by their time
  const auto mix = [](double& sum, double value) { sum = kKeep * sum + value; };
  mix(seconds_, m.step_seconds);
  mix(wait_, m.data_wait_seconds);
  mix(tokens_, static_cast<double>(m.tokens));
  mix(images_, static_cast<double>(m.images));
  mix(mfu_, m.mfu * m.step_seconds);
  if (seconds_ <= 0) return fmt::format("loss {:.4f}", m.loss);
  std::string text = fmt::format("loss {:.4f} lr {:.2e} {:.0f} tokens/s", m.loss, m.lr, tokens_ / seconds_);
  if (images_ > 0) text += fmt::format(" {:.1f} images/s", images_ / seconds_);
  return text + fmt::format(" mfu {:.0f} % data wait {:.1f} % peak {}", 100 * mfu_ / seconds_,
                            100 * wait_ / seconds_, format_bytes(static_cast<double>(m.peak_memory_bytes)));
}

std::int64_t peak_memory_bytes(const c10::Device& device) {
  if (!device.is_cpu()) {
    const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(std::max<c10::DeviceIndex>(device.index(), 0));
    return stats.allocated_bytes[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace llava
