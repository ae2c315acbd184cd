// Vocabularies of GGUF files against llama.cpp (llama-cpp-python; tools/reference/tokenizer_gguf.py made
// the goldens).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"
#include "formats/tensor_file.h"
#include "gguf_vocabulary_json.h"
#include "support/golden.h"
#include "text/tokenizer.h"

namespace llava {
namespace {

using Ids = std::vector<std::int64_t>;

void expect_ids(const Tokenizer& tokenizer, const std::string& text, const Json& row) {
  SCOPED_TRACE(Json(text).dump());
  const auto ids = row["ids"].get<Ids>();
  EXPECT_EQ(tokenizer.encode(text), ids);
  EXPECT_EQ(tokenizer.encode(text, {.parse_special = false}), row.value("plain", ids));
}

class GgufTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(GgufTokenizer, EncodesEveryStringAsLlamaCpp) {
  const std::string name = GetParam();
  const std::string file =
      name == "llama" ? "tokenizers/gguf_llama.json" : "tokenizers/gguf_byte_level.json";
  LLAVA_GOLDEN_OR_SKIP(vocabulary_file, file);
  LLAVA_GOLDEN_OR_SKIP(ids_file, "tokenizers/gguf_ids.json");
  GgufVocabulary vocabulary = test::gguf_vocabulary(read_json_file(vocabulary_file));
  vocabulary.pre = name == "llama" ? "" : name;
  const auto tokenizer = tokenizer_from_gguf(vocabulary);
  const Json golden = read_json_file(ids_file);
  for (const Json& row : golden["strings"]) expect_ids(*tokenizer, row["text"], row[name]);
}

INSTANTIATE_TEST_SUITE_P(Kinds, GgufTokenizer,
                         ::testing::Values("smollm", "qwen2", "llama-bpe", "gpt-2", "default", "llama"),
                         [](const auto& kind) {
                           std::string name = kind.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

/// SmolLM2's GGUF: $LLAVA_SMOLLM2_GGUF, or what scripts/demo has put into .deps/nano.
std::optional<std::filesystem::path> find_smollm2() {
  if (const char* path = std::getenv("LLAVA_SMOLLM2_GGUF")) return path;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(test::source_dir() / ".deps" / "nano", none))
    if (entry.path().extension() == ".gguf") return entry.path();
  return std::nullopt;
}

TEST(GgufTokenizer, EncodesEveryStringWithSmolLm2AsLlamaCpp) {
  LLAVA_GOLDEN_OR_SKIP(ids_file, "tokenizers/smollm2_gguf_ids.json");
  const auto path = find_smollm2();
  if (!path) GTEST_SKIP() << "SmolLM2's GGUF is not here (LLAVA_SMOLLM2_GGUF or .deps/nano)";
  const auto file = open_gguf(*path);
  Json data;
  for (const auto& [key, name] : {std::pair{"tokens", "tokens"},
                                  {"token_types", "token_type"},
                                  {"merges", "merges"},
                                  {"pre", "pre"},
                                  {"model", "model"},
                                  {"bos_id", "bos_token_id"}})
    data[key] = file->metadata().at(std::string("tokenizer.ggml.") + name);
  const auto tokenizer = tokenizer_from_gguf(test::gguf_vocabulary(data));
  const Json golden = read_json_file(ids_file);
  for (const Json& row : golden["strings"]) {
    expect_ids(*tokenizer, row["text"], row);
    EXPECT_EQ(tokenizer->decode(row["ids"].get<Ids>()), row["text"].get<std::string>());
  }
}

GgufVocabulary small_vocabulary() {
  GgufVocabulary v;
  v.model = "gpt2";
  v.pre = "gpt-2";
  v.tokens = {"a", "b", "ab", "<|end|>"};
  v.token_types = {1, 1, 1, 3};
  v.merges = {"a b"};
  return v;
}

TEST(GgufTokenizer, AddsBosAndEosAsTheFileSays) {
  GgufVocabulary v = small_vocabulary();
  v.bos_id = v.eos_id = 3;
  v.add_bos = v.add_eos = true;
  const auto tokenizer = tokenizer_from_gguf(v);
  EXPECT_EQ(tokenizer->encode("ab", {.add_special_tokens = true}), (Ids{3, 2, 3}));
  EXPECT_EQ(tokenizer->encode("ab"), Ids{2});
  EXPECT_EQ(tokenizer->decode(Ids{3, 2, 3}, true), "ab");
}

void expect_refused(const GgufVocabulary& v, ErrorKind kind, const std::string& message) {
  try {
    tokenizer_from_gguf(v);
    FAIL() << "accepted; expected: " << message;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind);
    EXPECT_THAT(e.what(), ::testing::HasSubstr(message));
  }
}

TEST(GgufTokenizer, RefusesWhatItDoesNotKnowByName) {
  GgufVocabulary v = small_vocabulary();
  v.model = "bert";
  expect_refused(v, ErrorKind::kUnsupported, "\"bert\"");
  v = small_vocabulary();
  v.pre = "tekken";
  expect_refused(v, ErrorKind::kUnsupported, "\"tekken\"");
}

TEST(GgufTokenizer, RefusesInconsistentVocabularies) {
  GgufVocabulary v = small_vocabulary();
  v.tokens.clear();
  expect_refused(v, ErrorKind::kFormat, "0 tokens");
  v = small_vocabulary();
  v.token_types.pop_back();
  expect_refused(v, ErrorKind::kFormat, "3 token types for 4 tokens");
  v = small_vocabulary();
  v.scores = {1.0F};
  expect_refused(v, ErrorKind::kFormat, "1 scores for 4 tokens");
  v = small_vocabulary();
  v.eos_id = 4;
  expect_refused(v, ErrorKind::kFormat, "eos_token_id 4 is not a token");
  v = small_vocabulary();
  v.add_bos = true;
  expect_refused(v, ErrorKind::kFormat, "add_bos_token without");
  v = small_vocabulary();
  v.merges = {"ab"};
  expect_refused(v, ErrorKind::kFormat, "merge \"ab\" has no space");
  v = small_vocabulary();
  v.merges = {"a c"};
  expect_refused(v, ErrorKind::kFormat, "token \"c\" is not in the vocabulary");
  v = small_vocabulary();
  v.tokens[0] = "\xFF";
  expect_refused(v, ErrorKind::kFormat, "token 0 is not UTF-8");
}

}  // namespace
}  // namespace llava
