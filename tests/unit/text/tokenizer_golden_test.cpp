// Every string of the tokenizer goldens (tools/reference, transformers 4.57.6 and sentencepiece): ids and
// texts are equal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "base/json.h"
#include "support/golden.h"
#include "text/tokenizer.h"

namespace llava {
namespace {

using Ids = std::vector<std::int64_t>;

class GoldenTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTokenizer, EncodesAndDecodesEveryString) {
  LLAVA_GOLDEN_OR_SKIP(file, std::string("tokenizers/") + GetParam() + ".json");
  const Json golden = read_json_file(file);
  LLAVA_GOLDEN_OR_SKIP(folder, std::string("checkpoints/").append(golden["checkpoint"].get<std::string>()));
  const auto tokenizer = load_tokenizer(folder);
  for (const Json& row : golden["strings"]) {
    const auto text = row["text"].get<std::string>();
    SCOPED_TRACE(row["text"].dump());
    const auto ids = row["ids"].get<Ids>(), ids_special = row["ids_special"].get<Ids>();
    EXPECT_EQ(tokenizer->encode(text), ids);
    EXPECT_EQ(tokenizer->encode(text, {.add_special_tokens = true}), ids_special);
    EXPECT_EQ(tokenizer->decode(ids), row["decode"].get<std::string>());
    EXPECT_EQ(tokenizer->decode(ids_special, true), row["decode_skip_special"].get<std::string>());
  }
}

TEST_P(GoldenTokenizer, SentencepieceAloneEncodesEveryString) {
  LLAVA_GOLDEN_OR_SKIP(file, std::string("tokenizers/") + GetParam() + ".json");
  const Json golden = read_json_file(file);
  LLAVA_GOLDEN_OR_SKIP(folder, std::string("checkpoints/").append(golden["checkpoint"].get<std::string>()));
  if (!std::filesystem::exists(folder / "tokenizer.model"))
    GTEST_SKIP() << "byte-level: no tokenizer.model";
  const auto tokenizer =
      tokenizer_from_sentencepiece(read_file(folder / "tokenizer.model"), Json(), Json());
  for (const Json& row : golden["strings"]) {
    SCOPED_TRACE(row["text"].dump());
    EXPECT_EQ(tokenizer->encode(row["text"].get<std::string>()), row["spm_ids"].get<Ids>());
  }
}

TEST_P(GoldenTokenizer, StreamsWhatDecodeGives) {
  LLAVA_GOLDEN_OR_SKIP(file, std::string("tokenizers/") + GetParam() + ".json");
  const Json golden = read_json_file(file);
  LLAVA_GOLDEN_OR_SKIP(folder, std::string("checkpoints/").append(golden["checkpoint"].get<std::string>()));
  const auto tokenizer = load_tokenizer(folder);
  for (const bool skip_special : {false, true}) {
    Detokenizer detokenizer(*tokenizer, skip_special);
    for (const Json& row : golden["strings"]) {
      SCOPED_TRACE(row["text"].dump());
      const auto ids = row["ids_special"].get<Ids>();
      std::string text;
      for (const auto id : ids) text += detokenizer.push(id);
      EXPECT_EQ(text + detokenizer.flush(), tokenizer->decode(ids, skip_special));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenTokenizer,
                         ::testing::Values("llama", "llama_meta", "llama_video", "mistral_v3", "llama3",
                                           "qwen2"),
                         [](const auto& kind) { return std::string(kind.param); });

}  // namespace
}  // namespace llava
