#include "base/error.h"
#include "base/files.h"
#include "text/tokenizer.h"

namespace llava {
namespace {

namespace fs = std::filesystem;

Json read_optional_json(const fs::path& path) {
  return fs::exists(path) ? read_json_file(path) : Json::object();
}

/// tokenizer_config.json; older checkpoints without its added_tokens_decoder keep their special tokens
/// beside it.
Json read_config(const fs::path& folder) {
  Json config = read_optional_json(folder / "tokenizer_config.json");
  if (!config.is_object())
    fail(ErrorKind::kFormat, "{}: expected a JSON object", (folder / "tokenizer_config.json").string());
  if (config.contains("added_tokens_decoder")) return config;
  const Json special = read_optional_json(folder / "special_tokens_map.json");
  if (!special.is_object())
    fail(ErrorKind::kFormat, "{}: expected a JSON object", (folder / "special_tokens_map.json").string());
  for (const auto& [role, token] : special.items()) config[role] = token;
  return config;
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& folder) {
  return with_context(folder.string(), [&]() -> std::shared_ptr<const Tokenizer> {
    if (fs::exists(folder / "tokenizer.json"))
      return tokenizer_from_json(read_json_file(folder / "tokenizer.json"), read_config(folder));
    if (!fs::exists(folder / "tokenizer.model"))
      fail(ErrorKind::kInput, "no tokenizer here: neither tokenizer.json nor tokenizer.model");
    Json config = read_config(folder);
    if (config.empty()) config["tokenizer_class"] = "LlamaTokenizer";
    return tokenizer_from_sentencepiece(read_file(folder / "tokenizer.model", std::size_t{64} << 20),
                                        config, read_optional_json(folder / "added_tokens.json"));
  });
}

}  // namespace llava
