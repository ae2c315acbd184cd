// tokenizer.json: configuration beside it, hostile files, untrusted text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/json.h"
#include "support/golden.h"
#include "text/tokenizer.h"

namespace llava {
namespace {

using Ids = std::vector<std::int64_t>;
using ::testing::HasSubstr;

Json small_tokenizer() {
  return Json::parse(R"({
    "added_tokens": [{"id": 5, "content": "<end>", "special": true}, {"id": 6, "content": "<tool>", "special": false}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "unk_token": "?", "vocab": {"?": 0, "a": 1, "b": 2, "ab": 3, " ": 4}, "merges": ["a b"]}})");
}

void expect_refused(const Json& json, ErrorKind kind, const std::string& message) {
  try {
    tokenizer_from_json(json);
    FAIL() << "accepted; expected: " << message;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    EXPECT_THAT(e.what(), HasSubstr(message));
  }
}

/// The small tokenizer with one value replaced.
Json with(const char* pointer, const Json& value) {
  Json json = small_tokenizer();
  json[Json::json_pointer(pointer)] = value;
  return json;
}

TEST(TokenizerJson, SpecialTextIsOrdinaryWhereItIsNotTrusted) {
  const auto tokenizer = tokenizer_from_json(small_tokenizer());
  EXPECT_EQ(tokenizer->encode("a<end>b"), (Ids{1, 5, 2}));
  const Ids plain = tokenizer->encode("a<end>b", {.parse_special = false});
  EXPECT_THAT(plain, ::testing::Not(::testing::Contains(5)));
  EXPECT_EQ(tokenizer->encode("a<tool>b", {.parse_special = false}), (Ids{1, 6, 2}));  // not special
}

TEST(TokenizerJson, DecodesWithoutSpecialTokensAndUnknownIds) {
  const auto tokenizer = tokenizer_from_json(small_tokenizer());
  EXPECT_EQ(tokenizer->decode(Ids{3, 5, 6, 1}), "ab<end><tool>a");
  EXPECT_EQ(tokenizer->decode(Ids{3, 5, 6, 1}, true), "ab<tool>a");
  EXPECT_EQ(tokenizer->decode(Ids{-200, 3, 1000000, 7}), "ab");
  EXPECT_EQ(tokenizer->id_to_token(-1), "");
  EXPECT_EQ(tokenizer->id_to_token(3), "ab");
}

TEST(TokenizerJson, MalformedUtf8IsReadAsReplacementCharacters) {
  const auto tokenizer = tokenizer_from_json(small_tokenizer());
  EXPECT_EQ(tokenizer->encode("a\xFFz"), tokenizer->encode("a\uFFFDz"));
}

TEST(TokenizerJson, SpecialTokensOfTheConfigAreAddedBehindTheVocabulary) {
  const auto tokenizer =
      tokenizer_from_json(small_tokenizer(), {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                              {"bos_token", "<end>"},
                                              {"eos_token", "<eos>"},
                                              {"pad_token", {{"content", "<pad>"}, {"normalized", false}}},
                                              {"unk_token", nullptr}});
  EXPECT_EQ(tokenizer->bos_id(), 5);
  EXPECT_EQ(tokenizer->eos_id(), 7);
  EXPECT_EQ(tokenizer->pad_id(), 8);
  EXPECT_EQ(tokenizer->unk_id(), 0);
  EXPECT_EQ(tokenizer->vocab_size(), 9);
  EXPECT_TRUE(tokenizer->is_special(8));
  EXPECT_FALSE(tokenizer->is_special(6));
  EXPECT_EQ(tokenizer->encode("<eos>"), Ids{7});
  EXPECT_EQ(tokenizer->token_to_id("nothing"), std::nullopt);
}

TEST(TokenizerJson, LlamaClassesTakeBosAndEosFromTheConfig) {
  const Json config{{"tokenizer_class", "LlamaTokenizerFast"},
                    {"bos_token", "<end>"},
                    {"eos_token", "<tool>"},
                    {"unk_token", "?"},
                    {"add_eos_token", true}};
  const auto tokenizer = tokenizer_from_json(small_tokenizer(), config);
  EXPECT_EQ(tokenizer->encode("a", {.add_special_tokens = true}), (Ids{5, 1, 6}));
  EXPECT_EQ(tokenizer->encode("a"), Ids{1});
}

TEST(TokenizerJson, LlamaClassesWithAnAddPrefixSpaceReplaceTheFilesRules) {
  Json json = with("/model/vocab", {{"?", 0}, {"\u2581", 1}, {"a", 2}});
  json["model"]["merges"] = Json::array();
  Json config{{"tokenizer_class", "LlamaTokenizer"},
              {"add_bos_token", false},
              {"bos_token", "<end>"},
              {"eos_token", "<end>"},
              {"unk_token", "?"},
              {"add_prefix_space", true}};
  EXPECT_EQ(tokenizer_from_json(json, config)->encode("a a"), (Ids{1, 2, 1, 2}));
  config["add_prefix_space"] = false;
  EXPECT_EQ(tokenizer_from_json(json, config)->encode("a a"), (Ids{2, 1, 2}));
  config["legacy"] = false;
  EXPECT_EQ(tokenizer_from_json(json, config)->encode("a a"), (Ids{2, 1, 2}));
}

TEST(TokenizerJson, TemplatesPutTheirTokensAround) {
  const auto tokenizer =
      tokenizer_from_json(with("/post_processor", Json::parse(R"({"type": "Sequence", "processors": [
    {"type": "ByteLevel"}, {"type": "TemplateProcessing", "pair": [],
     "single": [{"SpecialToken": {"id": "B"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "E"}}],
     "special_tokens": {"B": {"ids": [5, 1]}, "E": {"ids": [2]}}}]})")));
  EXPECT_EQ(tokenizer->encode("ab", {.add_special_tokens = true}), (Ids{5, 1, 3, 2}));
}

TEST(TokenizerJson, RefusesUnknownPartsByName) {
  const auto kind = ErrorKind::kUnsupported;
  expect_refused(with("/model/type", "WordPiece"), kind, "WordPiece");
  expect_refused(with("/model/dropout", 0.1), kind, "dropout");
  expect_refused(with("/model/end_of_word_suffix", "</w>"), kind, "end_of_word_suffix");
  expect_refused(with("/normalizer", {{"type", "BertNormalizer"}}), kind, "BertNormalizer");
  expect_refused(
      with("/normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", ""}}), kind,
      " {2,}");
  expect_refused(with("/pre_tokenizer", {{"type", "BertPreTokenizer"}}), kind, "BertPreTokenizer");
  expect_refused(with("/pre_tokenizer",
                      {{"type", "Split"}, {"pattern", {{"Regex", "\\w+"}}}, {"behavior", "Isolated"}}),
                 kind, "\\w+");
  expect_refused(
      with("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", "x"}}}, {"behavior", "Odd"}}),
      kind, "Odd");
  expect_refused(
      with("/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "odd"}}),
      kind, "odd");
  expect_refused(with("/decoder", {{"type", "WordPiece"}}), kind, "WordPiece");
  expect_refused(
      with(
          "/decoder",
          Json::parse(R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})")),
      kind, "fused");
  expect_refused(with("/post_processor", {{"type", "BertProcessing"}}), kind, "BertProcessing");
  expect_refused(with("/post_processor", {{"type", "TemplateProcessing"}, {"single", Json::array()}}), kind,
                 "does not appear");
}

TEST(TokenizerJson, RefusesMalformedFiles) {
  const auto kind = ErrorKind::kFormat;
  expect_refused(Json::array(), kind, "object");
  expect_refused(with("/model", 3), kind, "\"model\"");
  expect_refused(with("/model/vocab", Json::array()), kind, "model.vocab");
  expect_refused(with("/model/vocab/a", -1), kind, "-1");
  expect_refused(with("/model/vocab/a", 1e9), kind, "1000000000");
  expect_refused(with("/model/vocab/a", 4294967296), kind, "4294967296");
  expect_refused(with("/model/vocab/a", "x"), kind, "\"a\"");
  expect_refused(with("/model/merges", "x"), kind, "model.merges");
  expect_refused(with("/model/merges/0", "a b c"), kind, "merges[0]");
  expect_refused(with("/model/merges/0", {"a"}), kind, "merges[0]");
  expect_refused(with("/model/merges/0", "a c"), kind, "\"c\"");
  expect_refused(with("/model/merges/0", "b a"), kind, "\"ba\"");
  expect_refused(with("/model/fuse_unk", "yes"), kind, "fuse_unk");
  expect_refused(with("/added_tokens", 3), kind, "added_tokens");
  expect_refused(with("/added_tokens/0", 3), kind, "added token");
  expect_refused(with("/added_tokens/0/content", std::string(600, 'x')), kind, "longer than 512 bytes");
  expect_refused(
      with("/normalizer", {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}}), kind,
      "empty");
  expect_refused(with("/normalizer", "NFC"), kind, "normalizer");
  expect_refused(with("/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "ab"}}), kind,
                 "one character");
  expect_refused(with("/pre_tokenizer", {{"type", "Metaspace"},
                                         {"replacement", "_"},
                                         {"prepend_scheme", "first"},
                                         {"add_prefix_space", false}}),
                 kind, "contradicts");
  expect_refused(with("/decoder", {{"type", "Strip"}, {"content", "ab"}, {"start", 1}, {"stop", 0}}), kind,
                 "one character");
  expect_refused(
      with("/post_processor",
           Json::parse(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "B"}}],
    "special_tokens": {}})")),
      kind, "\"B\" is not defined");
}

TEST(TokenizerJson, BoundsTheWorkOfHostileFiles) {
  Json many = Json::array();
  for (int i = 0; i < 100; ++i) many.push_back({{"type", "NFC"}});
  expect_refused(with("/normalizer", {{"type", "Sequence"}, {"normalizers", many}}), ErrorKind::kFormat,
                 "more than 64 steps");
  const Json grow{{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(64, 'a')}};
  const auto bomb = tokenizer_from_json(
      with("/normalizer", {{"type", "Sequence"}, {"normalizers", {grow, grow, grow, grow, grow, grow}}}));
  try {
    bomb->encode("a");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kResource);
  }
}

TEST(TokenizerJson, AMissingUnknownTokenIsAnErrorOnlyWhereItIsNeeded) {
  const auto tokenizer = tokenizer_from_json(with("/model/unk_token", "<unk>"));
  EXPECT_EQ(tokenizer->encode("ab"), Ids{3});
  EXPECT_THROW(tokenizer->encode("z"), Error);
}

void write(const std::filesystem::path& path, const Json& json) { std::ofstream(path) << json.dump(); }

TEST(LoadTokenizer, NamesWhatItLookedFor) {
  try {
    load_tokenizer(test::scratch_dir("no_tokenizer"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInput);
    EXPECT_THAT(e.what(), HasSubstr("neither tokenizer.json nor tokenizer.model"));
  }
}

TEST(LoadTokenizer, ReadsOlderSpecialTokensMaps) {
  const auto folder = test::scratch_dir("old_tokenizer");
  write(folder / "tokenizer.json", small_tokenizer());
  write(folder / "special_tokens_map.json", {{"eos_token", {{"content", "<end>"}}}});
  EXPECT_EQ(load_tokenizer(folder)->eos_id(), 5);
}

TEST(LoadTokenizer, NamesTheFolderOfABrokenFile) {
  const auto folder = test::scratch_dir("broken_tokenizer");
  std::ofstream(folder / "tokenizer.json") << "{\"model\":";
  try {
    load_tokenizer(folder);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kFormat);
    EXPECT_THAT(e.what(), HasSubstr("broken_tokenizer"));
  }
}

}  // namespace
}  // namespace llava
