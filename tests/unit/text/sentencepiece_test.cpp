#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "support/golden.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer.h"

namespace llava {
namespace {

using Ids = std::vector<std::int64_t>;

std::string from_base64(const std::string& text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  std::uint32_t bits = 0;
  int num_bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = (bits << 6) | static_cast<std::uint32_t>(kDigits.find(c));
    if ((num_bits += 6) >= 8) out.push_back(static_cast<char>((bits >> (num_bits -= 8)) & 0xFF));
  }
  return out;
}

TEST(SentencePiece, FollowsCharacterMapUserPiecesAndSpacesAsTheLibrary) {
  LLAVA_GOLDEN_OR_SKIP(file, "tokenizers/spm_rules.json");
  const Json golden = read_json_file(file);
  const auto tokenizer = tokenizer_from_sentencepiece(from_base64(golden["proto"]), Json(), Json());
  for (const Json& row : golden["strings"]) {
    SCOPED_TRACE(row.dump());
    const auto ids = row[1].get<Ids>();
    if (row[0].is_string()) {
      EXPECT_EQ(tokenizer->encode(row[0].get<std::string>()), ids);
    }
    EXPECT_EQ(tokenizer->decode(ids), row[2].get<std::string>());
    Detokenizer stream(*tokenizer, false);
    std::string text;
    for (const auto id : ids) text += stream.push(id);
    EXPECT_EQ(text + stream.flush(), row[2].get<std::string>());
  }
}

/// A protobuf field: a number, or bytes.
std::string number(int field, int value) {
  return {static_cast<char>(field << 3), static_cast<char>(value)};
}
std::string bytes(int field, const std::string& data) {
  std::string out{static_cast<char>((field << 3) | 2), static_cast<char>(data.size())};
  return out.append(data);
}
std::string piece(const std::string& text, int type) {
  return bytes(1, bytes(1, text).append(number(3, type)));
}
const std::string kBpe = bytes(2, number(3, 2));

void expect_refused(const std::string& proto, ErrorKind kind, const std::string& message) {
  try {
    tokenizer_from_sentencepiece(proto, Json(), Json());
    FAIL() << "accepted; expected: " << message;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind);
    EXPECT_THAT(e.what(), ::testing::HasSubstr(message));
  }
}

TEST(SentencePiece, ReadsAHandWrittenModel) {
  const auto tokenizer = tokenizer_from_sentencepiece(
      piece("<unk>", 2) + piece("a", 1) + piece("\xE2\x96\x81", 1) + kBpe, Json(), Json());
  EXPECT_EQ(tokenizer->encode("a"), (Ids{2, 1}));
  EXPECT_EQ(tokenizer->encode("zza"), (Ids{2, 0, 1}));  // a run of unknown characters is one piece
  EXPECT_EQ(tokenizer->unk_id(), 0);
  EXPECT_EQ(tokenizer->vocab_size(), 3);
}

TEST(SentencePiece, RefusesMalformedFiles) {
  const std::string unk = piece("<unk>", 2);
  expect_refused("", ErrorKind::kUnsupported, "\"unigram\"");  // protobuf's default
  expect_refused(kBpe, ErrorKind::kFormat, "no pieces");
  expect_refused(unk.substr(0, 5) + kBpe, ErrorKind::kFormat, "at byte");
  expect_refused(std::string("\x0A\xFF\xFF\xFF\xFF\x0F", 6), ErrorKind::kFormat, "longer than the file");
  expect_refused(std::string("\x08\xFF", 2), ErrorKind::kFormat, "ends inside a number");
  expect_refused(std::string(12, '\xFF'), ErrorKind::kFormat, "more than 10 bytes");
  expect_refused(std::string("\x0B", 1), ErrorKind::kFormat, "unknown wire type");
  expect_refused(std::string("\x00\x01", 2), ErrorKind::kFormat, "field number 0");
  expect_refused(piece("a", 1) + kBpe, ErrorKind::kFormat, "0 unknown pieces");
  expect_refused(unk + piece("a", 1) + piece("a", 1) + kBpe, ErrorKind::kFormat, "\"a\" appears twice");
  expect_refused(unk + piece("a", 9) + kBpe, ErrorKind::kFormat, "unknown type 9");
  expect_refused(unk + piece("", 1) + kBpe, ErrorKind::kFormat, "piece 1 has 0 bytes");
  expect_refused(unk + piece("\xFF", 1) + kBpe, ErrorKind::kFormat, "piece 1 is not UTF-8");
  expect_refused(unk + bytes(2, number(3, 2).append(std::string("\x98\x02\x01", 3))), ErrorKind::kFormat,
                 "<0x00> is missing");
  expect_refused(unk + bytes(3, bytes(2, "abcdefghi")) + kBpe, ErrorKind::kFormat, "does not fit");
  expect_refused(unk + bytes(3, bytes(2, "ab")) + kBpe, ErrorKind::kFormat, "cut short");
}

TEST(SentencePiece, RefusesWhatItDoesNotKnowByName) {
  const std::string unk = piece("<unk>", 2);
  expect_refused(unk + bytes(2, number(3, 3)), ErrorKind::kUnsupported, "\"word\"");
  expect_refused(unk + piece("a", 5) + kBpe, ErrorKind::kUnsupported, "unused pieces");
  expect_refused(unk + bytes(5, bytes(2, "x")) + kBpe, ErrorKind::kUnsupported, "denormalizer");
}

TEST(SlowLlama, RefusesOtherTokenizerClasses) {
  const std::string proto = piece("<unk>", 2) + piece("<s>", 3) + piece("</s>", 3) + kBpe;
  try {
    tokenizer_from_sentencepiece(proto, {{"tokenizer_class", "XLNetTokenizer"}}, Json());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUnsupported);
    EXPECT_THAT(e.what(), ::testing::HasSubstr("XLNetTokenizer"));
  }
}

TEST(SlowLlama, TakesAddedTokensFromTheirOwnFile) {
  const std::string proto =
      piece("<unk>", 2) + piece("<s>", 3) + piece("</s>", 3) + piece("\xE2\x96\x81", 1) + kBpe;
  const auto tokenizer = tokenizer_from_sentencepiece(
      proto, {{"tokenizer_class", "LlamaTokenizer"}, {"pad_token", "<pad>"}}, {{"<image>", 4}});
  EXPECT_EQ(tokenizer->encode("<image>", {.add_special_tokens = true}), (Ids{1, 4}));
  EXPECT_EQ(tokenizer->pad_id(), 5);
  EXPECT_FALSE(tokenizer->is_special(4));
  EXPECT_TRUE(tokenizer->is_special(5));
  EXPECT_EQ(tokenizer->vocab_size(), 6);
}

TEST(SlowLlama, EqualsTheSlowTokenizerOfTheOriginalLayout) {
  LLAVA_GOLDEN_OR_SKIP(file, "tokenizers/slow_llama.json");
  LLAVA_GOLDEN_OR_SKIP(model, "checkpoints/llava15/tokenizer.model");
  const std::string proto = read_file(model);
  const Json golden = read_json_file(file);
  for (const char* name : {"legacy", "modern"}) {
    const Json& item = golden[name];
    const auto tokenizer = tokenizer_from_sentencepiece(proto, item["config"], Json());
    for (const Json& row : item["strings"]) {
      SCOPED_TRACE(std::string(name).append(row.dump()));
      const auto ids = row[1].get<Ids>();
      if (row[0].is_string()) {
        EXPECT_EQ(tokenizer->encode(row[0].get<std::string>(), {.add_special_tokens = true}), ids);
      }
      EXPECT_EQ(tokenizer->decode(ids), row[2].get<std::string>());
      EXPECT_EQ(tokenizer->decode(ids, true), row[3].get<std::string>());
      Detokenizer stream(*tokenizer, false);
      std::string text;
      for (const auto id : ids) text += stream.push(id);
      EXPECT_EQ(text + stream.flush(), row[2].get<std::string>());
    }
  }
}

}  // namespace
}  // namespace llava
