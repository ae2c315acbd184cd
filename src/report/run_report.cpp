#include "report/run_report.h"

#include <algorithm>
#include <cmath>

#include "base/base64.h"
#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "report/page.h"
#include "report/run_data.h"
#include "vision/thumbnail.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kThumbnailSide = 320;
constexpr std::size_t kMaxRows = 200, kMaxAnswers = 12;

std::string text_of(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return "";
  return it->is_string() ? it->get<std::string>() : it->dump();
}

/// "1234567" -> "1.23 M".
std::string short_count(std::int64_t count) {
  const auto value = static_cast<double>(count);
  if (count >= 1'000'000'000) return fmt::format("{:.2f} G", value / 1e9);
  if (count >= 1'000'000) return fmt::format("{:.2f} M", value / 1e6);
  return count >= 10'000 ? fmt::format("{:.1f} k", value / 1e3) : fmt::format("{}", count);
}

std::string tile(const std::string& value, const std::string& name) {
  return fmt::format("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", html_text(value),
                     html_text(name));
}

/// Mean of the last finite values of a curve; NaN without any.
double last_mean(const Curve* curve, std::size_t count) {
  double sum = 0, n = 0;
  if (curve != nullptr)
    for (auto it = curve->values.rbegin(); it != curve->values.rend() && n < static_cast<double>(count);
         ++it)
      if (std::isfinite(*it)) sum += *it, n += 1;
  return n > 0 ? sum / n : std::nan("");
}

std::string tiles(const RunData& data) {
  std::string html = "<div class=\"tiles\">\n" + tile(short_count(data.steps), "steps");
  const auto number = [&](double value, const char* format, const char* name) {
    if (std::isfinite(value)) html += tile(fmt::format(fmt::runtime(format), value), name);
  };
  number(last_mean(data.train.find("loss"), 20), "{:.4f}", "loss, last steps");
  if (const Curve* loss = data.validation.find("eval_loss")) {
    double best = std::nan("");
    for (const double value : loss->values) best = std::isnan(best) || value < best ? value : best;
    number(best, "{:.4f}", "best validation loss");
  }
  html += tile(short_count(data.samples_seen), "samples") + tile(short_count(data.tokens), "tokens");
  if (data.seconds > 0) {
    html += tile(format_duration(data.seconds), "in steps");
    html += tile(short_count(static_cast<std::int64_t>(static_cast<double>(data.tokens) / data.seconds)),
                 "tokens a second");
  }
  const double mfu = last_mean(data.train.find("mfu"), 50);
  if (mfu > 0) html += tile(fmt::format("{:.1f} %", 100 * mfu), "MFU");
  if (const Curve* memory = data.train.find("peak_memory_bytes");
      memory != nullptr && !memory->values.empty())
    html += tile(format_bytes(memory->values.back()), "peak memory");
  return html + "</div>\n";
}

std::string stage_table(const RunData& data) {
  if (data.stages.empty()) return "";
  std::string html =
      "<h2>Stages</h2>\n<div class=\"card scroll\"><table><tr><th>stage</th><th>from "
      "step</th><th>steps</th>"
      "<th>records</th><th>samples a "
      "step</th><th>tower</th><th>connector</th><th>decoder</th><th>LoRA</th></tr>\n";
  for (const Json& stage : data.stages) {
    html += "<tr>";
    for (const char* key : {"stage", "step", "steps", "records", "samples_per_step"})
      html += "<td>" + html_text(text_of(stage, key)) + "</td>";
    for (const char* key : {"vision_tower", "mm_projector", "language_model", "lora"}) {
      const auto trained = stage.find("trained_parameters");
      const bool there =
          trained != stage.end() && trained->is_object() && trained->value(key, Json()).is_number();
      html += "<td>" + (there ? short_count((*trained)[key].get<std::int64_t>()) : "") + "</td>";
    }
    html += "</tr>\n";
  }
  return html + "</table></div>\n<p class=\"note\">The last four columns count trained parameters.</p>\n";
}

std::string bad_table(const RunData& data) {
  if (data.bad_steps.empty() && data.bad_samples.empty()) return "";
  std::string html =
      "<h2>Bad steps and samples</h2>\n<div class=\"card scroll\"><table><tr><th>step</th><th>what</th>"
      "<th>samples</th></tr>\n";
  std::size_t rows = 0;
  for (const Json& bad : data.bad_steps) {
    if (++rows > kMaxRows) break;
    std::string samples;
    if (const auto list = bad.find("samples"); list != bad.end() && list->is_array())
      for (const Json& sample : *list)
        if (sample.is_object()) samples += html_text(text_of(sample, "sample")) + "<br>";
    html += fmt::format("<tr><td>{}</td><td><b class=\"bad\">{}</b>: {}</td><td>{}</td></tr>\n",
                        text_of(bad, "step"), html_text(text_of(bad, "action")),
                        html_text(text_of(bad, "reason")), samples);
  }
  for (const Json& bad : data.bad_samples) {
    if (++rows > kMaxRows) break;
    html += fmt::format("<tr><td>{}</td><td>sample not used</td><td>{}</td></tr>\n", text_of(bad, "step"),
                        html_text(text_of(bad, "reason")));
  }
  html += "</table></div>\n";
  const std::size_t all = data.bad_steps.size() + data.bad_samples.size();
  if (all > kMaxRows) html += fmt::format("<p class=\"note\">The first {} of {}.</p>\n", kMaxRows, all);
  return html;
}

std::string images_html(const Json& sample) {
  std::string html;
  const auto images = sample.find("images");
  if (images == sample.end() || !images->is_array()) return html;
  for (const Json& name : *images) {
    if (!name.is_string()) continue;
    const fs::path path = name.get<std::string>();
    const auto jpeg = try_outcome([&] { return thumbnail_jpeg(load_image(path), kThumbnailSide); });
    if (jpeg && !jpeg.value().empty()) {
      html += fmt::format("<img alt=\"{}\" src=\"data:image/jpeg;base64,{}\">",
                          html_text(path.filename().string()), base64(jpeg.value()));
    } else {
      html += "<span class=\"note\">" + html_text(path.string()) + "</span>";
    }
  }
  return html.empty() ? "" : "<div class=\"images\">" + html + "</div>\n";
}

std::string sample_html(const Json& sample, const std::vector<const Json*>& answers) {
  std::string html = fmt::format("<article class=\"card sample\"><small>{}, {}</small>\n",
                                 html_text(text_of(sample, "kind")), html_text(text_of(sample, "sample")));
  html += images_html(sample) + "<div class=\"text\">";
  if (const auto pieces = sample.find("pieces"); pieces != sample.end() && pieces->is_array())
    for (const Json& piece : *pieces)
      if (piece.is_object())
        html += fmt::format("<span class=\"{}\">{}</span>", html_text(text_of(piece, "kind")),
                            html_text(text_of(piece, "text")));
  html += "</div>\n";
  if (!answers.empty()) html += "<div class=\"answers\">\n";
  const std::size_t skipped = answers.size() > kMaxAnswers ? answers.size() - kMaxAnswers : 0;
  for (std::size_t i = skipped; i < answers.size(); ++i) {
    const Json& line = *answers[i];
    html += fmt::format("<div><span>step {}</span><span>{}</span></div>\n", text_of(line, "step"),
                        html_text(text_of(line, "answer")));
  }
  if (!answers.empty()) html += "</div>\n";
  return html + "</article>\n";
}

std::string sample_section(const RunData& data) {
  if (data.samples.empty()) return "";
  std::vector<std::pair<std::string, std::vector<const Json*>>>
      groups;  // by sample, in order of appearance
  for (const Json& line : data.samples) {
    const std::string key =
        text_of(line, "stage") + "\n" + text_of(line, "kind") + "\n" + text_of(line, "sample");
    auto it =
        std::find_if(groups.begin(), groups.end(), [&](const auto& group) { return group.first == key; });
    if (it == groups.end()) it = groups.insert(groups.end(), {key, {}});
    it->second.push_back(&line);
  }
  std::string html =
      "<h2>Samples</h2>\n<p class=\"note\">As the model gets them: <span class=\"sample\"><span "
      "class=\"trained\">"
      "marked</span></span> tokens are trained, the others are masked. Below a validation sample stands "
      "what the "
      "model itself answered after a step.</p>\n<div class=\"samples\">\n";
  for (const auto& [key, lines] : groups) {
    std::vector<const Json*> answers;
    for (const Json* line : lines)
      if (line->contains("answer")) answers.push_back(line);
    const auto described =
        std::find_if(lines.begin(), lines.end(), [](const Json* l) { return l->contains("pieces"); });
    html += sample_html(described == lines.end() ? *lines.front() : **described, answers);
  }
  return html + "</div>\n";
}

/// The script's data: a JSON text that cannot end the element it stands in.
std::string script_data(const RunData& data) {
  OrderedJson stages = OrderedJson::array(), bad = OrderedJson::array();
  for (const Json& stage : data.stages)
    stages.push_back({{"step", stage["step"].get<std::int64_t>()}, {"stage", text_of(stage, "stage")}});
  for (const Json& step : data.bad_steps) bad.push_back(step["step"].get<std::int64_t>());
  const auto& steps = data.train.steps;
  std::string text =
      fmt::format("{{\"train\":{},\"validation\":{},\"stages\":{},\"bad\":{},\"first\":{},\"last\":{}}}",
                  curves_json(data.train), curves_json(data.validation), stages.dump(), bad.dump(),
                  steps.empty() ? 0 : steps.front(), steps.empty() ? 1 : steps.back());
  for (std::size_t at = 0; (at = text.find('<', at)) != std::string::npos;) text.replace(at, 1, "\\u003c");
  return text;
}

std::string page_html(const RunData& data, const std::string& name) {
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{} – "
      "training</title>\n"
      "<style>{}</style>\n</head>\n<body>\n<main>\n<header><h1>{}</h1><span "
      "class=\"state{}\">{}</span></header>\n",
      html_text(name), page_style(), html_text(name), data.finished ? " done" : "",
      data.finished ? "finished" : "not finished");
  html += tiles(data);
  html +=
      "<div class=\"bar\"><label>smoothing <input id=\"smooth\" type=\"range\" min=\"0\" max=\"0.98\" "
      "step=\"0.02\" "
      "value=\"0.8\"></label><label><input id=\"alllog\" type=\"checkbox\"> logarithmic "
      "scales</label></div>\n"
      "<div id=\"charts\" class=\"charts\"></div>\n";
  html += stage_table(data) + bad_table(data) + sample_section(data);
  if (!data.config.empty())
    html += "<h2>Config</h2>\n<details><summary>config.yaml, defaults included</summary><pre>" +
            html_text(data.config) + "</pre></details>\n";
  html +=
      "</main>\n<script id=\"data\" type=\"application/json\">" + script_data(data) + "</script>\n<script>";
  return html + std::string(page_script()) + "</script>\n</body>\n</html>\n";
}

}  // namespace

std::string html_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

fs::path write_run_report(const fs::path& run) {
  const RunData data = read_run(run);
  const fs::path absolute = fs::absolute(run).lexically_normal();
  const std::string name =
      (absolute.has_filename() ? absolute : absolute.parent_path()).filename().string();
  const fs::path page = run / "report.html";
  write_file_atomic(page, page_html(data, name));
  return page;
}

}  // namespace llava
