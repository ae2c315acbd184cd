#include "infer/session.h"

#include "base/error.h"
#include "infer_fixture.h"

namespace llava {
namespace {

SessionOptions short_answers() {
  SessionOptions options;
  options.sampling.max_new_tokens = 12;
  return options;
}

TEST(ChatSession, AnswersAsHuggingFaceDoes) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  SessionOptions options = short_answers();
  options.sampling.max_new_tokens = 16;
  options.sampling.ignore_eos = true;
  ChatSession session(golden->bundle, options);
  session.add_image(test::image_path("rgb_640x480.png"));
  EXPECT_EQ(session.ask("What is this?").ids, golden->ids("image_rgb_640x480.png/greedy"));
}

TEST(ChatSession, FollowUpsReuseTheCacheAndSayTheSame) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  SessionOptions options = short_answers();
  ChatSession fast(golden->bundle, options);
  options.reuse_cache = false;
  ChatSession slow(golden->bundle, options);
  for (ChatSession* session : {&fast, &slow}) session->add_image(test::image_path("rgb_640x480.png"));
  std::int64_t reused = 0;
  for (const char* question : {"What is this?", "And the colour?", "Why?"}) {
    const Answer quick = fast.ask(question), full = slow.ask(question);
    EXPECT_EQ(quick.ids, full.ids) << question;
    EXPECT_EQ(full.stats.reused_tokens, 0);
    reused += quick.stats.reused_tokens;
  }
  EXPECT_GT(reused, 128);  // the image's 64 tokens, twice
}

TEST(ChatSession, ANewConversationAboutTheSameImageReusesItsPrefix) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  ChatSession session(golden->bundle, short_answers());
  session.add_image(test::image_path("rgb_640x480.png"));
  const Answer first = session.ask("What is this?");
  EXPECT_GT(first.stats.image_ms, 0);
  session.clear();
  session.add_image(test::image_path("rgb_640x480.png"));
  const Answer second = session.ask("What is this?");
  EXPECT_EQ(second.ids, first.ids);
  EXPECT_EQ(second.stats.image_ms, 0);
  EXPECT_EQ(second.stats.reused_tokens, second.stats.prompt_tokens - 1);
}

TEST(ChatSession, AnotherImageIsNotMistakenForTheCachedOne) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  ChatSession session(golden->bundle, short_answers()), fresh(golden->bundle, short_answers());
  session.add_image(test::image_path("rgb_640x480.png"));
  session.ask("What is this?");
  session.clear();
  session.add_image(test::image_path("rgb_57x133.png"));
  fresh.add_image(test::image_path("rgb_57x133.png"));
  const Answer again = session.ask("What is this?");
  EXPECT_EQ(again.ids, fresh.ask("What is this?").ids);
  EXPECT_LT(again.stats.reused_tokens, 10);
}

TEST(ChatSession, AFullContextDropsTheOldestTurnAndSaysSo) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  SessionOptions options = short_answers();
  options.context_length = 128;
  std::string notice;
  options.notice = [&](const std::string& text) { notice += text; };
  ChatSession session(golden->bundle, options);
  session.add_image(test::image_path("rgb_640x480.png"));
  for (int i = 0; i < 6; ++i) session.ask("Tell me more about it.");
  EXPECT_NE(notice.find("dropped the oldest"), std::string::npos);
  EXPECT_EQ(session.conversation().num_images(), 1u);  // the photo stays
  EXPECT_LT(session.conversation().messages.size(), 12u);
}

TEST(ChatSession, AFullContextCanBeRefused) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  SessionOptions options = short_answers();
  options.context = ContextPolicy::kRefuse;
  options.context_length = 40;
  ChatSession session(golden->bundle, options);
  const auto fill = [&] {
    for (int i = 0; i < 6; ++i) session.ask("Tell me more about it.");
  };
  EXPECT_THROW(fill(), Error);
  const std::size_t before = session.conversation().messages.size();
  EXPECT_THROW(session.ask("More."), Error);
  EXPECT_EQ(session.conversation().messages.size(), before);
}

TEST(ChatSession, OneQuestionThatIsTooLongIsAlwaysRefused) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  SessionOptions options = short_answers();
  options.context_length = 32;
  ChatSession session(golden->bundle, options);
  session.add_image(test::image_path("rgb_640x480.png"));
  EXPECT_THROW(session.ask("What is this?"), Error);
}

TEST(ChatSession, BadImagesAreNamedAndChangeNothing) {
  LLAVA_MODEL_OR_SKIP(golden, "llava15");
  ChatSession session(golden->bundle, short_answers());
  try {
    session.add_image("/nonexistent.png");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInput);
    EXPECT_NE(std::string(error.what()).find("/nonexistent.png"), std::string::npos);
  }
  EXPECT_EQ(session.num_images(), 0u);
}

TEST(ChatSession, ATextModelRefusesImages) {
  LLAVA_MODEL_OR_SKIP(golden, "llama3");
  ChatSession session(golden->bundle, short_answers());
  EXPECT_THROW(session.add_image(test::image_path("rgb_640x480.png")), Error);
  EXPECT_NO_THROW(session.ask("Hello"));
}

TEST(ChatSession, WithoutAChatTemplateItNamesTheOption) {
  LLAVA_MODEL_OR_SKIP(golden, "llama");
  try {
    ChatSession session(golden->bundle, short_answers());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.hint().find("--chat-format"), std::string::npos);
  }
}

}  // namespace
}  // namespace llava
