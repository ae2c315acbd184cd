#include <fmt/ranges.h>

#include <cstdlib>
#include <string>

#include "base/error.h"
#include "base/fields.h"
#include "checkpoint/checkpoint.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

/// Folder of the running program; empty where the system does not tell.
fs::path program_folder() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path{} : program.parent_path();
}

void append_list(std::vector<fs::path>& folders, const char* list) {
  std::string_view rest = list;
  while (!rest.empty()) {
    const std::size_t colon = rest.find(':');
    if (colon != 0) folders.emplace_back(rest.substr(0, colon));
    rest = colon == std::string_view::npos ? std::string_view{} : rest.substr(colon + 1);
  }
}

std::vector<std::string> installed_models() {
  std::vector<std::string> names;
  for (const fs::path& folder : model_folders()) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      const bool model =
          fs::is_regular_file(entry.path() / "config.json", error) || entry.path().extension() == ".gguf";
      if (model) names.push_back(entry.path().filename().string());
    }
  }
  return names;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

}  // namespace

std::vector<fs::path> model_folders() {
  std::vector<fs::path> folders;
  if (const char* list = std::getenv("LLAVA_MODELS")) append_list(folders, list);
  if (const fs::path program = program_folder(); !program.empty()) {
    folders.push_back(program / ".." / "share" / "llava" / "models");
    folders.push_back(program / "models");
  }
  if (const char* home = std::getenv("HOME"))
    folders.push_back(fs::path(home) / ".cache" / "llava" / "models");
  return folders;
}

fs::path find_model(const std::string& name_or_path) {
  std::error_code error;
  if (!name_or_path.empty() && fs::exists(name_or_path, error)) return name_or_path;
  std::string looked;
  if (is_plain_name(name_or_path)) {
    for (const fs::path& folder : model_folders()) {
      if (fs::exists(folder / name_or_path, error)) return (folder / name_or_path).lexically_normal();
      looked += (looked.empty() ? "" : ", ") + folder.lexically_normal().string();
    }
  }
  const std::string where =
      looked.empty() ? "no such folder or file" : "not a path here, and not installed in " + looked;
  const std::vector<std::string> names = installed_models();
  throw Error(ErrorKind::kInput,
              fmt::format("no model \"{}\": {}{}", name_or_path, where, did_you_mean(name_or_path, names)),
              fmt::format("installed models: {}",
                          names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
}

}  // namespace llava
