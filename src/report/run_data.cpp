#include "report/run_data.h"

#include <cmath>
#include <fstream>
#include <limits>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/files.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

std::vector<Json> lines_of(const fs::path& path) {
  std::vector<Json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    Json json = Json::parse(line, nullptr, false);
    if (json.is_object() && json.contains("step") && json["step"].is_number_integer())
      lines.push_back(std::move(json));
  }
  return lines;
}

/// Columns from lines; every `bucket` lines become one point.
class CurveBuilder {
 public:
  explicit CurveBuilder(std::size_t bucket) : bucket_(bucket) {}
  void add(const Json& line) {
    if (in_bucket_ == 0) out_.steps.push_back(0);
    out_.steps.back() = line["step"].get<std::int64_t>();
    for (const auto& [key, value] : line.items())
      if (value.is_number() && key != "step") add_number(key, value.get<double>());
    if (++in_bucket_ == bucket_) in_bucket_ = 0;
  }
  Curves take() {
    for (std::size_t c = 0; c < out_.curves.size(); ++c) {
      std::vector<double>& values = out_.curves[c].values;
      values.resize(out_.steps.size(), kNone);
      for (std::size_t i = 0; i < counts_[c].size(); ++i)
        if (counts_[c][i] > 0) values[i] /= counts_[c][i];
    }
    return std::move(out_);
  }

 private:
  void add_number(const std::string& key, double number) {
    const auto [it, fresh] = index_.emplace(key, out_.curves.size());
    if (fresh) {
      out_.curves.push_back({key, {}});
      counts_.emplace_back();
    }
    std::vector<double>& values = out_.curves[it->second].values;
    std::vector<int>& counts = counts_[it->second];
    values.resize(out_.steps.size(), kNone);
    counts.resize(out_.steps.size(), 0);
    values.back() = counts.back()++ == 0 ? number : values.back() + number;
  }
  std::size_t bucket_, in_bucket_ = 0;
  Curves out_;
  std::vector<std::vector<int>> counts_;
  std::map<std::string, std::size_t> index_;
};

std::string json_number(double value) {
  return std::isfinite(value) ? fmt::format("{:.6g}", value) : "null";
}

void add_totals(RunData& data, const std::vector<Json>& steps) {
  data.steps = steps.empty() ? 0 : steps.back()["step"].get<std::int64_t>() + 1;
  for (const Json& line : steps) {
    const auto number = [&](const char* key) {
      const auto it = line.find(key);
      return it != line.end() && it->is_number() ? it->get<double>() : 0.0;
    };
    data.tokens += static_cast<std::int64_t>(number("tokens"));
    data.samples_seen += static_cast<std::int64_t>(number("samples"));
    data.seconds += number("step_seconds") + number("save_seconds");
  }
}

}  // namespace

const Curve* Curves::find(const std::string& name) const {
  for (const Curve& curve : curves)
    if (curve.name == name) return &curve;
  return nullptr;
}

RunData read_run(const fs::path& run) {
  if (!fs::is_regular_file(run / "metrics.jsonl"))
    throw Error(ErrorKind::kInput, fmt::format("{}: no metrics.jsonl", run.string()),
                "name the output folder of a training");
  std::vector<Json> steps, results;
  for (Json& line : lines_of(run / "metrics.jsonl"))
    (line.contains("eval_loss") ? results : steps).push_back(std::move(line));
  RunData data;
  CurveBuilder train(std::max<std::size_t>(1, (steps.size() + kMaxCurvePoints - 1) / kMaxCurvePoints));
  for (const Json& line : steps) train.add(line);
  data.train = train.take();
  CurveBuilder validation(1);
  for (const Json& line : results) validation.add(line);
  data.validation = validation.take();
  add_totals(data, steps);
  data.stages = lines_of(run / "stages.jsonl");
  data.bad_steps = lines_of(run / "bad_steps.jsonl");
  data.bad_samples = lines_of(run / "bad_samples.jsonl");
  data.samples = lines_of(run / "samples.jsonl");
  if (fs::exists(run / "config.yaml")) data.config = read_file(run / "config.yaml");
  data.finished = fs::is_directory(run / "final");
  return data;
}

std::string curves_json(const Curves& curves) {
  std::string text = fmt::format("{{\"steps\":[{}],\"curves\":{{", fmt::join(curves.steps, ","));
  bool first = true;
  for (const Curve& curve : curves.curves) {
    text += fmt::format("{}{}:[", first ? "" : ",", Json(curve.name).dump());
    for (std::size_t i = 0; i < curve.values.size(); ++i)
      text += (i == 0 ? "" : ",") + json_number(curve.values[i]);
    text += "]";
    first = false;
  }
  return text + "}}";
}

}  // namespace llava
