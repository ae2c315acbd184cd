#include "text/tokenizer_config.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace llava {
namespace {

constexpr std::string_view kWhat = "tokenizer_config.json";
constexpr std::string_view kRoles[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};

/// The special tokens of a class where the file does not name them.
std::string_view default_special(std::string_view tokenizer_class, std::string_view role) {
  if (tokenizer_class == "LlamaTokenizer" || tokenizer_class == "CodeLlamaTokenizer") {
    if (role == "bos_token") return "<s>";
    if (role == "eos_token") return "</s>";
    if (role == "unk_token") return "<unk>";
  }
  const bool gpt2 = tokenizer_class == "GPT2Tokenizer", qwen2 = tokenizer_class == "Qwen2Tokenizer";
  if ((gpt2 || qwen2) && (role == "eos_token" || role == "unk_token")) return "<|endoftext|>";
  if ((gpt2 && role == "bos_token") || (qwen2 && role == "pad_token")) return "<|endoftext|>";
  return {};
}

/// A string or {"content": …}; nullopt for null.
std::optional<AddedToken> special_from_json(const Json& value, std::string_view role) {
  if (value.is_null()) return std::nullopt;
  AddedToken token;
  if (value.is_object())
    token = added_token_from_json(value, fmt::format("{}: {}", kWhat, role));
  else if (value.is_string())
    token.content = value.get<std::string>();
  else
    fail(ErrorKind::kFormat, "{}: \"{}\" must be a string or an object with \"content\"", kWhat, role);
  token.special = true;
  return token;
}

void read_special_tokens(const Json& json, TokenizerConfig& config) {
  for (const std::string_view role : kRoles) {
    const auto it = json.find(std::string(role));
    const std::string_view preset = default_special(config.tokenizer_class, role);
    std::optional<AddedToken> token;
    if (it != json.end())
      token = special_from_json(*it, role);
    else if (!preset.empty())
      token = special_from_json(Json(preset), role);
    if (token && !token->content.empty()) config.special_tokens.emplace_back(role, *token);
  }
  const auto more = json.find("additional_special_tokens");
  if (more == json.end() || !more->is_array()) return;
  for (const Json& value : *more)
    if (auto token = special_from_json(value, "additional_special_tokens");
        token && !token->content.empty())
      config.special_tokens.emplace_back("additional_special_tokens", *token);
}

void read_added_tokens(const Json& json, TokenizerConfig& config) {
  const auto it = json.find("added_tokens_decoder");
  if (it == json.end() || it->is_null()) return;
  if (!it->is_object()) fail(ErrorKind::kFormat, "{}: \"added_tokens_decoder\" must be an object", kWhat);
  config.has_added_tokens_decoder = true;
  for (const auto& [key, value] : it->items()) {
    AddedToken token = added_token_from_json(value, fmt::format("{}: added token {}", kWhat, key));
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size() || token.id < 0 || token.id > kMaxTokenId)
      fail(ErrorKind::kFormat, "{}: added_tokens_decoder: \"{}\" is not an id of 0..{}", kWhat, key,
           kMaxTokenId);
    config.added_tokens.push_back(std::move(token));
  }
  std::sort(config.added_tokens.begin(), config.added_tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
}

}  // namespace

TokenizerConfig TokenizerConfig::from_json(const Json& json) {
  TokenizerConfig config;
  if (json.is_null()) return config;
  config.tokenizer_class = json_get_or<std::string>(json, "tokenizer_class", "", kWhat);
  if (config.tokenizer_class.ends_with("Fast") && config.tokenizer_class != "PreTrainedTokenizerFast")
    config.tokenizer_class.resize(config.tokenizer_class.size() - 4);
  config.clean_up_tokenization_spaces =
      json_get_or<bool>(json, "clean_up_tokenization_spaces", false, kWhat);
  config.legacy = json_get_or<bool>(json, "legacy", true, kWhat);
  config.add_bos_token = json_get_or<bool>(json, "add_bos_token", true, kWhat);
  config.add_eos_token = json_get_or<bool>(json, "add_eos_token", false, kWhat);
  if (json.contains("add_prefix_space") && !json["add_prefix_space"].is_null())
    config.add_prefix_space = json_get<bool>(json, "add_prefix_space", kWhat);
  read_special_tokens(json, config);
  read_added_tokens(json, config);
  return config;
}

bool TokenizerConfig::is_llama_class() const {
  return tokenizer_class == "LlamaTokenizer" || tokenizer_class == "CodeLlamaTokenizer" ||
         tokenizer_class == "GemmaTokenizer";
}

std::optional<std::string> TokenizerConfig::special(std::string_view role) const {
  for (const auto& [name, token] : special_tokens)
    if (name == role) return token.content;
  return std::nullopt;
}

}  // namespace llava
