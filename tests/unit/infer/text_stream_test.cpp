#include "infer/text_stream.h"

#include <gtest/gtest.h>

#include "support/golden.h"

namespace llava {
namespace {

class TextStreamTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto path = test::find_golden("checkpoints/llama3");
    if (!path) GTEST_SKIP() << "golden checkpoints/llama3 is not here";
    tokenizer_ = load_tokenizer(*path);
  }
  /// What comes out of `text`'s ids, push by push, joined by "|".
  std::string stream(const std::string& text, std::vector<std::string> stops, bool* stopped = nullptr) {
    TextStream stream(tokenizer_.get(), std::move(stops));
    std::string out;
    for (const std::int64_t id : tokenizer_->encode(text))
      if (const std::string piece = stream.push(id); !piece.empty()) out += piece;
    out += stream.flush();
    if (stopped != nullptr) *stopped = stream.stopped();
    return out;
  }
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(TextStreamTest, WithoutStopStringsEverythingComes) {
  EXPECT_EQ(stream("Hello, wide world: grüße 😀!", {}), "Hello, wide world: grüße 😀!");
}

TEST_F(TextStreamTest, EndsBeforeTheStopString) {
  bool stopped = false;
  EXPECT_EQ(stream("one two ### three", {"###"}, &stopped), "one two ");
  EXPECT_TRUE(stopped);
}

TEST_F(TextStreamTest, HeldBackTextComesAtTheEnd) {
  bool stopped = true;
  EXPECT_EQ(stream("one two ##", {"###"}, &stopped), "one two ##");
  EXPECT_FALSE(stopped);
}

TEST_F(TextStreamTest, TheEarliestStopStringCounts) {
  EXPECT_EQ(stream("a STOP b END", {"END", "STOP"}), "a ");
}

TEST_F(TextStreamTest, NeverEmitsTheBeginningOfAStopString) {
  TextStream text(tokenizer_.get(), {"User:"});
  std::string out;
  for (const std::int64_t id : tokenizer_->encode("Fine. User: next")) {
    out += text.push(id);
    EXPECT_EQ(out.find("U"), std::string::npos) << out;
  }
  EXPECT_EQ(out, "Fine. ");
}

TEST(TextStream, WithoutTokenizerThereIsNoText) {
  TextStream stream(nullptr, {"x"});
  EXPECT_EQ(stream.push(5), "");
  EXPECT_EQ(stream.flush(), "");
}

}  // namespace
}  // namespace llava
