#include "train/metrics.h"

#include <sys/resource.h>

#include "base/error.h"
#include "base/files.h"

namespace llava {

namespace {

/// The lines of an earlier run that stay: those before `first_step`; a torn last line goes.
std::string kept_lines(const std::filesystem::path& path, std::int64_t first_step) {
  std::string kept;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const Json json = Json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    if (json["step"].get<std::int64_t>() < first_step) kept += line + "\n";
  }
  return kept;
}

}  // namespace

MetricsWriter::MetricsWriter(const std::filesystem::path& path, std::int64_t first_step) : path_(path) {
  write_file_atomic(path, std::filesystem::exists(path) ? kept_lines(path, first_step) : std::string());
  file_.open(path, std::ios::app);
  if (!file_) fail(ErrorKind::kResource, "cannot write {}", path.string());
}

void MetricsWriter::write(const StepMetrics& m) {
  OrderedJson json = {{"step", m.step},
                            {"stage", m.stage},
                            {"loss", m.loss},
                            {"grad_norm", m.grad_norm},
                            {"lr", m.lr},
                            {"tokens", m.tokens},
                            {"supervised_tokens", m.supervised_tokens},
                            {"images", m.images},
                            {"step_seconds", m.step_seconds},
                            {"data_wait_seconds", m.data_wait_seconds},
                            {"peak_memory_bytes", m.peak_memory_bytes},
                            {"mfu", m.mfu}};
  for (const auto& [name, value] : m.extra) json[name] = value;
  file_ << json.dump() << "\n" << std::flush;
  if (!file_) fail(ErrorKind::kResource, "cannot write {}: is the disk full?", path_.string());
}

std::int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace llava
