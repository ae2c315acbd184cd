#include "report/json_lines.h"

#include <string>

#include "base/error.h"
#include "base/files.h"

namespace llava {

namespace {

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

JsonLines::JsonLines(const std::filesystem::path& path, std::int64_t first_step) : path_(path) {
  if (std::filesystem::exists(path)) write_file_atomic(path, kept_lines(path, first_step));
}

void JsonLines::write(const OrderedJson& line) {
  if (!file_.is_open()) file_.open(path_, std::ios::app);
  file_ << line.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) << "\n" << std::flush;
  if (!file_) fail(ErrorKind::kResource, "cannot write {}: is the disk full?", path_.string());
}

}  // namespace llava
