// Each part of a tokenizer.json against the `tokenizers` library (tools/reference/tokenizer_parts.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "support/golden.h"
#include "text/normalizer.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/tokenizer.h"

namespace llava {
namespace {

using Ids = std::vector<std::int64_t>;

TEST(TokenizerParts, NormalizersEqualTheReference) {
  LLAVA_GOLDEN_OR_SKIP(file, "tokenizers/parts.json");
  const Json golden = read_json_file(file);
  for (const Json& item : golden["normalizers"]) {
    SCOPED_TRACE(item["json"].dump());
    const Normalizer normalizer = Normalizer::from_json(item["json"]);
    for (const Json& row : item["rows"])
      EXPECT_EQ(normalizer.apply(row[0].get<std::string>()), row[1].get<std::string>()) << row[0];
  }
}

TEST(TokenizerParts, PreTokenizersEqualTheReference) {
  LLAVA_GOLDEN_OR_SKIP(file, "tokenizers/parts.json");
  const Json golden = read_json_file(file);
  for (const Json& item : golden["pre_tokenizers"]) {
    SCOPED_TRACE(item["json"].dump());
    const PreTokenizer pre_tokenizer = PreTokenizer::from_json(item["json"]);
    for (const Json& row : item["rows"]) {
      PieceList list = PieceList::whole(row[0].get<std::string>(), true);
      pre_tokenizer.apply(list);
      std::vector<std::string> pieces;
      for (std::size_t i = 0; i < list.ranges.size(); ++i) pieces.emplace_back(list.piece(i));
      EXPECT_EQ(pieces, row[1].get<std::vector<std::string>>()) << row[0];
    }
  }
}

TEST(TokenizerParts, DecodersEqualTheReference) {
  LLAVA_GOLDEN_OR_SKIP(file, "tokenizers/parts.json");
  const Json golden = read_json_file(file);
  for (const Json& item : golden["decoders"]) {
    SCOPED_TRACE(item["json"].dump());
    const TokenDecoder decoder = TokenDecoder::from_json(item["json"], false);
    for (const Json& row : item["rows"]) {
      TokenDecoder::Stream stream(decoder);
      std::string text;
      for (const Json& token : row[0]) stream.push(token.get<std::string>(), text);
      stream.finish(text);
      EXPECT_EQ(text, row[1].get<std::string>()) << row[0];
    }
  }
}

TEST(TokenizerParts, AddedTokensAndBpeOptionsEqualTheReference) {
  LLAVA_GOLDEN_OR_SKIP(file, "tokenizers/parts.json");
  const Json golden = read_json_file(file);
  for (const Json& item : golden["whole"]) {
    const auto tokenizer = tokenizer_from_json(item["json"]);
    for (const Json& row : item["rows"])
      EXPECT_EQ(tokenizer->encode(row[0].get<std::string>()), row[1].get<Ids>()) << row[0] << item["json"];
  }
}

std::string decode(const Json& decoder, bool clean_up, const std::vector<std::string>& tokens) {
  const TokenDecoder chain = TokenDecoder::from_json(decoder, clean_up);
  TokenDecoder::Stream stream(chain);
  std::string text;
  for (const std::string& token : tokens) stream.push(token, text);
  stream.finish(text);
  return text;
}

TEST(TokenDecoder, CleansUpSpacesAsHuggingFaceDoes) {
  const Json fuse{{"type", "Fuse"}};
  EXPECT_EQ(decode(fuse, true, {"Hello", " ,", " world", " !", " It", " 's", " ok"}),
            "Hello, world! It's ok");
  EXPECT_EQ(decode(fuse, true, {"a b", " c", " ' ", "d ?", " do", " n't", " x"}), "a b c'd? don't x");
  EXPECT_EQ(decode(fuse, true, {"a n", " ' ", "t b"}), "an't b");  // one replacement makes the next
  EXPECT_EQ(decode(fuse, false, {"Hello", " ,"}), "Hello ,");
}

TEST(TokenDecoder, CleaningUpStreamsWhereNothingCanJoin) {
  const TokenDecoder chain = TokenDecoder::from_json({{"type", "Fuse"}}, true);
  TokenDecoder::Stream stream(chain);
  std::string text;
  for (const char* token : {"one", " two", " three"}) stream.push(token, text);
  EXPECT_EQ(text, "one two");
  stream.finish(text);
  EXPECT_EQ(text, "one two three");
}

}  // namespace
}  // namespace llava
