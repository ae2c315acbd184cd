#pragma once
#include "base/json.h"
#include "text/tokenizer.h"

namespace llava::test {

/// A vocabulary as tools/reference/tokenizer_gguf.py writes it: {"model", "pre", "tokens", "scores",
/// "token_types", "merges", "bos_id"…}.
inline GgufVocabulary gguf_vocabulary(const Json& json) {
  constexpr const char* kWhat = "vocabulary";
  GgufVocabulary v;
  v.model = json_get<std::string>(json, "model", kWhat);
  v.pre = json_get_or<std::string>(json, "pre", "", kWhat);
  v.tokens = json_get<std::vector<std::string>>(json, "tokens", kWhat);
  v.scores = json_get_or<std::vector<float>>(json, "scores", {}, kWhat);
  v.token_types = json_get_or<std::vector<std::int32_t>>(json, "token_types", {}, kWhat);
  v.merges = json_get_or<std::vector<std::string>>(json, "merges", {}, kWhat);
  const auto id = [&](const char* key) -> std::optional<std::int64_t> {
    const auto value = json_get_or<std::int64_t>(json, key, -1, kWhat);
    return value < 0 ? std::nullopt : std::optional(value);
  };
  v.bos_id = id("bos_id");
  v.eos_id = id("eos_id");
  v.unk_id = id("unk_id");
  v.pad_id = id("pad_id");
  v.add_bos = json_get_or<bool>(json, "add_bos", false, kWhat);
  v.add_eos = json_get_or<bool>(json, "add_eos", false, kWhat);
  v.add_space_prefix = json_get_or<bool>(json, "add_space_prefix", true, kWhat);
  return v;
}

}  // namespace llava::test
