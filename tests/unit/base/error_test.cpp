#include "base/error.h"

#include <gtest/gtest.h>

namespace llava {
namespace {

TEST(Error, MapsEveryKindToItsExitCode) {
  EXPECT_EQ(exit_code(ErrorKind::kUsage), 2);
  EXPECT_EQ(exit_code(ErrorKind::kInput), 2);
  EXPECT_EQ(exit_code(ErrorKind::kFormat), 2);
  EXPECT_EQ(exit_code(ErrorKind::kUnsupported), 2);
  EXPECT_EQ(exit_code(ErrorKind::kResource), 1);
  EXPECT_EQ(exit_code(ErrorKind::kInternal), 1);
  EXPECT_EQ(exit_code(ErrorKind::kStopped), 75);
}

TEST(Error, WithContextPutsThePlaceBeforeTheMessageAndKeepsKindAndHint) {
  try {
    with_context("reading a.bin",
                 []() -> int { throw Error(ErrorKind::kFormat, "bad magic", "download it again"); });
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "reading a.bin: bad magic");
    EXPECT_EQ(e.kind(), ErrorKind::kFormat);
    EXPECT_EQ(e.hint(), "download it again");
  }
}

TEST(Error, AssertNamesTheConditionAndTheReason) {
  try {
    LLAVA_ASSERT(1 + 1 == 3, "sums must add up");
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInternal);
    EXPECT_NE(std::string(e.what()).find("1 + 1 == 3"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("sums must add up"), std::string::npos);
  }
}

TEST(Outcome, HoldsAValueOrTheReasonWhyThereIsNone) {
  const Outcome<int> good = try_outcome([] { return 7; });
  ASSERT_TRUE(good.ok());
  EXPECT_EQ(good.value(), 7);
  const Outcome<int> bad = try_outcome([]() -> int { fail(ErrorKind::kInput, "no {}", "file"); });
  ASSERT_FALSE(bad.ok());
  EXPECT_STREQ(bad.error().what(), "no file");
}

}  // namespace
}  // namespace llava
