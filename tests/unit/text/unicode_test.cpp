// Unicode properties and normal forms against what the `tokenizers` library does
// (tools/reference/tokenizer_parts.py).
#include <gtest/gtest.h>

#include <functional>

#include "base/json.h"
#include "support/golden.h"
#include "text/unicode.h"

namespace llava::unicode {
namespace {

/// Python's zlib.crc32.
class Crc32 {
 public:
  void add(std::uint8_t byte) {
    value_ ^= byte;
    for (int bit = 0; bit < 8; ++bit) value_ = (value_ >> 1) ^ ((value_ & 1) != 0 ? 0xEDB88320U : 0U);
  }
  void add(std::string_view bytes) {
    for (const char c : bytes) add(static_cast<std::uint8_t>(c));
  }
  std::uint32_t value() const { return ~value_; }

 private:
  std::uint32_t value_ = 0xFFFFFFFFU;
};

bool is_surrogate(char32_t c) { return c >= 0xD800 && c < 0xE000; }

std::uint32_t checksum(bool (*property)(char32_t)) {
  Crc32 crc;
  for (char32_t c = 0; c < 0x110000; ++c)
    crc.add(static_cast<std::uint8_t>(!is_surrogate(c) && property(c)));
  return crc.value();
}

std::uint32_t checksum(const std::function<std::string(std::string_view)>& mapping) {
  Crc32 crc;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (is_surrogate(c)) continue;
    const std::string text = encode(c), mapped = mapping(text);
    if (mapped != text) crc.add(mapped);
  }
  return crc.value();
}

std::function<std::string(std::string_view)> to(NormalForm form) {
  return [form](std::string_view text) { return normalize(text, form); };
}

TEST(Unicode, PropertiesOfAllCodePointsEqualTheReference) {
  LLAVA_GOLDEN_OR_SKIP(file, "tokenizers/parts.json");
  const Json sums = read_json_file(file)["unicode"]["sums"];
  EXPECT_EQ(checksum(is_letter), sums["letter"]);
  EXPECT_EQ(checksum(is_number), sums["number"]);
  EXPECT_EQ(checksum(is_punctuation), sums["punctuation"]);
  EXPECT_EQ(checksum(is_space), sums["space"]);
  EXPECT_EQ(checksum(is_numeric), sums["numeric"]);
  EXPECT_EQ(checksum(to_lower), sums["Lowercase"]);
}

TEST(Unicode, NormalFormsOfAllCharactersEqualTheReference) {
  LLAVA_GOLDEN_OR_SKIP(file, "tokenizers/parts.json");
  const Json sums = read_json_file(file)["unicode"]["sums"];
  EXPECT_EQ(checksum(to(NormalForm::kNfc)), sums["NFC"]);
  EXPECT_EQ(checksum(to(NormalForm::kNfd)), sums["NFD"]);
  EXPECT_EQ(checksum(to(NormalForm::kNfkc)), sums["NFKC"]);
  EXPECT_EQ(checksum(to(NormalForm::kNfkd)), sums["NFKD"]);
}

TEST(Unicode, NormalFormsOfMarkSequencesEqualTheReference) {
  LLAVA_GOLDEN_OR_SKIP(file, "tokenizers/parts.json");
  const Json golden = read_json_file(file);
  for (const Json& row : golden["unicode"]["rows"]) {
    const auto text = row[0].get<std::string>();
    EXPECT_EQ(normalize(text, NormalForm::kNfc), row[1].get<std::string>()) << row[0];
    EXPECT_EQ(normalize(text, NormalForm::kNfd), row[2].get<std::string>()) << row[0];
    EXPECT_EQ(normalize(text, NormalForm::kNfkc), row[3].get<std::string>()) << row[0];
    EXPECT_EQ(normalize(text, NormalForm::kNfkd), row[4].get<std::string>()) << row[0];
  }
}

TEST(Unicode, ReplacesMalformedBytesByMaximalSubparts) {
  EXPECT_EQ(replace_invalid("a\x80z"), "a\uFFFDz");
  EXPECT_EQ(replace_invalid("\xE4\xB8"), "\uFFFD");
  EXPECT_EQ(replace_invalid("\xE4\xB8x"), "\uFFFDx");
  EXPECT_EQ(replace_invalid("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(replace_invalid("\xC0\xAF"), "\uFFFD\uFFFD");            // overlong
  EXPECT_EQ(replace_invalid("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replace_invalid("中😀"), "中😀");
  EXPECT_TRUE(is_valid("中😀"));
  EXPECT_FALSE(is_valid("\xE4\xB8"));
}

TEST(Unicode, Utf8StreamGivesWholeCharactersOnly) {
  Utf8Stream stream;
  std::string out;
  for (const char c : std::string("a中😀")) {
    stream.push(std::string(1, c), out);
    EXPECT_TRUE(is_valid(out));
  }
  EXPECT_EQ(out, "a中😀");
  stream.push("\xF0\x9F", out);
  EXPECT_EQ(out, "a中😀");
  stream.flush(out);
  EXPECT_EQ(out, "a中😀\uFFFD");
}

}  // namespace
}  // namespace llava::unicode
