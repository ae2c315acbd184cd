#pragma once
#include <filesystem>
#include <string>

namespace llava {

/// Writes `run/report.html`, one file that needs no network: curves of metrics.jsonl, stages, bad steps and
/// samples, shown samples with their images and answers, the config. `run` is the output folder of a
/// training, finished or not. Returns the page's path. Error{kInput} if the folder has no metrics.jsonl.
std::filesystem::path write_run_report(const std::filesystem::path& run);

/// Text as HTML shows it.
std::string html_text(std::string_view text);

}  // namespace llava
