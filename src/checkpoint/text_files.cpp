#include <string>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/parts.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMaxTemplateBytes = std::size_t{1} << 20;

/// The content of a special token: a string, or an object with "content".
std::string token_text(const Json& token) {
  if (token.is_string()) return token.get<std::string>();
  if (token.is_object() && token.contains("content") && token.at("content").is_string())
    return token.at("content").get<std::string>();
  return {};
}

/// bos_token, eos_token, … as HF hands them to a template.
Json template_variables(const fs::path& folder) {
  Json variables = Json::object();
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    if (!fs::is_regular_file(folder / name)) continue;
    const Json config = read_json_file(folder / name);
    if (!config.is_object()) continue;
    for (const auto& [key, value] : config.items())
      if (key.ends_with("_token") && !token_text(value).empty()) variables[key] = token_text(value);
  }
  return variables;
}

/// A chat_template entry: text, or HF's older list of {name, template}, of which "default" counts.
std::string template_text(const Json& value, const std::string& what) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_array()) {
    for (const Json& entry : value)
      if (entry.is_object() && entry.value("name", "") == "default" && entry.contains("template") &&
          entry.at("template").is_string())
        return entry.at("template").get<std::string>();
  }
  fail(ErrorKind::kFormat, "{}: chat_template must be text or a list with a \"default\" entry", what);
}

std::string find_template(const fs::path& folder) {
  if (fs::is_regular_file(folder / "chat_template.jinja"))
    return read_file(folder / "chat_template.jinja", kMaxTemplateBytes);
  for (const char* name : {"chat_template.json", "processor_config.json", "tokenizer_config.json"}) {
    const fs::path path = folder / name;
    if (!fs::is_regular_file(path)) continue;
    const Json config = read_json_file(path);
    if (config.is_object() && config.contains("chat_template") && !config.at("chat_template").is_null())
      return template_text(config.at("chat_template"), path.string());
  }
  return {};
}

bool has_tokenizer(const fs::path& folder) {
  return fs::is_regular_file(folder / "tokenizer.json") || fs::is_regular_file(folder / "tokenizer.model");
}

}  // namespace

std::shared_ptr<const ChatFormat> read_chat_template(const fs::path& folder) {
  std::string source = find_template(folder);
  if (source.empty()) return nullptr;
  if (source.size() > kMaxTemplateBytes)
    fail(ErrorKind::kFormat, "{}: the chat template has {} bytes", folder.string(), source.size());
  return with_context(folder.string(), [&] {
    return chat_format_from_jinja(std::move(source), template_variables(folder));
  });
}

void read_text_files(const fs::path& folder, CheckpointInfo& info) {
  if (has_tokenizer(folder)) info.tokenizer = load_tokenizer(folder);
  if (auto format = read_chat_template(folder)) info.chat_format = std::move(format);
  const fs::path generation = folder / "generation_config.json";
  if (fs::is_regular_file(generation)) info.generation_config = read_json_file(generation);
  info.stop_ids = info.generation_config.is_object()
                      ? id_list(info.generation_config, "eos_token_id", generation.string())
                      : std::vector<std::int64_t>{};
  if (info.stop_ids.empty()) info.stop_ids = info.model.eos_token_ids;
  if (info.stop_ids.empty() && info.tokenizer && info.tokenizer->eos_id())
    info.stop_ids = {*info.tokenizer->eos_id()};
}

}  // namespace llava
