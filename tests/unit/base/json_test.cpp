#include "base/json.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace llava {
namespace {

TEST(Json, RefusesDeepNestingBeforeParsing) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  EXPECT_THROW(parse_json(deep, "deep.json"), Error);
  EXPECT_NO_THROW(parse_json("\"" + std::string(1000, '[') + "\"", "string.json"));
  EXPECT_NO_THROW(parse_json("\"\\\"[[\"", "escaped.json"));
}

TEST(Json, SyntaxErrorsAndBadUtf8NameTheSource) {
  for (const std::string text : {"{\"a\": ", "{\"a\": \"\xff\"}", "", "nul"}) {
    try {
      parse_json(text, "config.json");
      FAIL() << "accepted " << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kFormat);
      EXPECT_EQ(std::string(e.what()).rfind("config.json", 0), 0u);
    }
  }
}

TEST(Json, TypedLookupsNameKeyAndRefuseWrongTypesAndRanges) {
  const Json j =
      parse_json(R"({"n": 3, "x": 2.5, "s": "t", "none": null, "big": 18446744073709551615})", "c");
  EXPECT_EQ(json_get<int>(j, "n", "c"), 3);
  EXPECT_EQ(json_get_or<int>(j, "absent", 9, "c"), 9);
  EXPECT_EQ(json_get_or<int>(j, "none", 9, "c"), 9);
  EXPECT_DOUBLE_EQ(json_get<double>(j, "n", "c"), 3.0);
  EXPECT_THROW(json_get<int>(j, "x", "c"), Error);
  EXPECT_THROW(json_get<int>(j, "s", "c"), Error);
  EXPECT_THROW(json_get<std::int64_t>(j, "big", "c"), Error);
  EXPECT_THROW(json_get<int>(j, "absent", "c"), Error);
}

}  // namespace
}  // namespace llava
