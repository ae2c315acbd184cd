#include "http/chat_endpoint.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "base/error.h"

namespace llava {
namespace {

HttpReply answered(int status, std::string body) {
  HttpReply reply;
  reply.status = status;
  reply.body = std::move(body);
  return reply;
}

std::string good(const std::string& text) {
  return Json{{"choices", {{{"message", {{"role", "assistant"}, {"content", text}}}}}}}.dump();
}

EndpointOptions options() {
  EndpointOptions options;
  options.url = "http://endpoint/v1";
  options.model = "critic";
  options.first_wait_seconds = 0.001;
  return options;
}

/// Gives these replies one after the other and counts.
struct Script {
  std::vector<HttpReply> replies;
  std::size_t calls = 0;
  std::string last_body;
  ChatEndpoint::Post post() {
    return [this](std::string_view body, const std::atomic<bool>*) {
      last_body = body;
      return replies.at(std::min(calls++, replies.size() - 1));
    };
  }
};

std::string error_of(ChatEndpoint& endpoint) {
  try {
    return "no error: " + endpoint.ask({}, "Q");
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(ChatRequest, HasTheImagesBeforeTheTextAndNoRandomness) {
  EndpointOptions o = options();
  o.max_tokens = 77;
  const Json request = chat_request(o, {"data:image/png;base64,AA==", "data:image/gif;base64,BB=="}, "Which?");
  EXPECT_EQ(request, Json::parse(R"({"model": "critic", "max_tokens": 77, "temperature": 0, "messages": [{"role": "user", "content": [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    {"type": "image_url", "image_url": {"url": "data:image/gif;base64,BB=="}},
    {"type": "text", "text": "Which?"}]}]})"));
}

TEST(ChatReply, IsTheFirstChoicesText) {
  EXPECT_EQ(parse_chat_reply(good("The first.")), "The first.");
  EXPECT_EQ(parse_chat_reply(R"({"choices": [{"message": {"content": ""}}, {"message": {"content": "b"}}]})"), "");
}

TEST(ChatReply, AnythingElseIsAFormatError) {
  for (const char* body :
       {"", "<html>", "{", "[]", "null", "3", "{}", R"({"choices": null})", R"({"choices": []})", R"({"choices": {}})",
        R"({"choices": [null]})", R"({"choices": ["x"]})", R"({"choices": [[]]})", R"({"choices": [{}]})",
        R"({"choices": [{"message": null}]})", R"({"choices": [{"message": []}]})", R"({"choices": [{"message": {}}]})",
        R"({"choices": [{"message": {"content": null, "refusal": "no"}}]})", R"({"choices": [{"message": {"content": 3}}]})",
        R"({"choices": [{"message": {"content": ["a"]}}]})", "{\"choices\": [{\"message\": {\"content\": \"\xff\"}}]}"}) {
    try {
      parse_chat_reply(body);
      ADD_FAILURE() << body;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFormat) << body;
      EXPECT_LT(std::string(error.what()).size(), 600u);
    }
  }
  EXPECT_THROW(parse_chat_reply(std::string(100000, '[')), Error);
}

TEST(ChatReply, AnEndpointsOwnWordsAreShown) {
  try {
    parse_chat_reply(R"({"error": {"message": "model is loading", "code": 1}})");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("model is loading"), std::string::npos);
  }
}

TEST(ChatReply, AnyBytesAreReadWithoutHarm) {
  std::mt19937 random(11);
  const std::string start = good("text \\u00e9");
  for (int i = 0; i < 5000; ++i) {
    std::string body = start;
    for (int k = 0; k < 3; ++k) {
      const std::size_t at = random() % body.size();
      if (random() % 2) body[at] = static_cast<char>(random());
      else body.erase(at, random() % 8);
      if (body.empty()) break;
    }
    try {
      parse_chat_reply(body);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kFormat);
    }
  }
}

TEST(ChatEndpoint, TriesAgainAfterServerErrorsAndBrokenConnections) {
  HttpReply broken;
  broken.failure = "no connection";
  broken.try_again = true;
  Script script{{answered(500, "x"), answered(429, "x"), broken, answered(200, good("done"))}};
  ChatEndpoint endpoint(options(), script.post());
  EXPECT_EQ(endpoint.ask({}, "Q"), "done");
  EXPECT_EQ(script.calls, 4u);
  EXPECT_EQ(Json::parse(script.last_body)["messages"][0]["content"][0]["text"], "Q");
}

TEST(ChatEndpoint, GivesUpAfterItsRetriesWithTheLastReason) {
  Script script{{answered(503, R"({"error": {"message": "busy"}})")}};
  EndpointOptions o = options();
  o.retries = 2;
  ChatEndpoint endpoint(o, script.post());
  const std::string error = error_of(endpoint);
  EXPECT_NE(error.find("503"), std::string::npos);
  EXPECT_NE(error.find("busy"), std::string::npos);
  EXPECT_EQ(script.calls, 3u);
}

TEST(ChatEndpoint, DoesNotRepeatWhatWouldFailAgain) {
  HttpReply late;
  late.failure = "no whole reply within 1 s";
  for (const HttpReply& reply : {answered(400, "{\"error\": \"bad\"}"), answered(401, "key"), answered(404, ""), answered(302, ""),
                                 answered(200, "not JSON"), late}) {
    Script script{{reply}};
    ChatEndpoint endpoint(options(), script.post());
    EXPECT_EQ(error_of(endpoint).find("no error"), std::string::npos);
    EXPECT_EQ(script.calls, 1u);
  }
}

TEST(ChatEndpoint, ACancelledWaitEndsAtOnce) {
  HttpReply busy = answered(429, "");
  busy.retry_after_seconds = 25;
  Script script{{busy}};
  ChatEndpoint endpoint(options(), script.post());
  std::atomic<bool> cancel{false};
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    cancel = true;
  });
  const auto start = std::chrono::steady_clock::now();
  try {
    endpoint.ask({}, "Q", &cancel);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kStopped);
  }
  other.join();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(ChatEndpoint, RefusesBadOptionsAndFiles) {
  const auto refused = [](auto&& change) {
    EndpointOptions o = options();
    change(o);
    try {
      ChatEndpoint endpoint(o);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_EQ(std::string(error.what()).find("secret"), std::string::npos);  // a key is never shown
    }
  };
  refused([](EndpointOptions& o) { o.api_key = "secret\r\nX-Other: 1"; });
  refused([](EndpointOptions& o) { o.url = "endpoint/v1"; });
  refused([](EndpointOptions& o) { o.retries = -1; });
  refused([](EndpointOptions& o) { o.limits.timeout_seconds = 0; });
  refused([](EndpointOptions& o) { o.max_tokens = 0; });
  Script script{{answered(200, good("x"))}};
  ChatEndpoint endpoint(options(), script.post());
  EXPECT_THROW(endpoint.ask({"/does/not/exist.png"}, "Q"), Error);
  EXPECT_EQ(script.calls, 0u);
}

}  // namespace
}  // namespace llava
