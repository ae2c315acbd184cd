#include "http/client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <thread>

#include "base/error.h"

namespace llava {
namespace {

/// Accepts one connection on the loopback, reads what is there and answers as the test says.
class OneShotServer {
 public:
  using Answer = std::function<void(int connection)>;
  explicit OneShotServer(Answer answer) : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 1) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      throw std::runtime_error("no loopback socket");
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, answer = std::move(answer)] { serve(answer); });
  }
  ~OneShotServer() {
    ::shutdown(listener_, SHUT_RDWR);  // ends an accept that nobody came for
    thread_.join();
    ::close(listener_);
  }
  Url url() const { return parse_url("http://127.0.0.1:" + std::to_string(port_) + "/v1"); }
  const std::string& request() const { return request_; }

 private:
  void serve(const Answer& answer) {
    const int connection = ::accept(listener_, nullptr, nullptr);
    if (connection < 0) return;
    char buffer[4096];
    const ssize_t n = ::recv(connection, buffer, sizeof buffer, 0);
    if (n > 0) request_.assign(buffer, static_cast<std::size_t>(n));
    answer(connection);
    ::close(connection);
  }

  int listener_;
  int port_ = 0;
  std::string request_;
  std::thread thread_;
};

/// False once the client has gone.
bool say(int connection, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::send(connection, text.data(), text.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

OneShotServer::Answer saying(std::string text) {
  return [text = std::move(text)](int connection) { say(connection, text); };
}

HttpLimits limits() {
  HttpLimits limits;
  limits.timeout_seconds = 5;
  limits.max_reply_bytes = 100000;
  return limits;
}

HttpReply post(const OneShotServer& server, const HttpLimits& bounds = limits(), const std::atomic<bool>* cancel = nullptr) {
  return http_post_json(server.url(), "/chat/completions", "key-1", "{\"a\":1}", bounds, cancel);
}

class HttpClient : public testing::Test {
  void SetUp() override {
    if (!http_is_built()) GTEST_SKIP() << "built without an HTTP client";
  }
};

TEST_F(HttpClient, SendsWhatAnEndpointExpects) {
  OneShotServer server(saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 1.5\r\n\r\nok"));
  const HttpReply reply = post(server);
  EXPECT_EQ(reply.status, 200) << reply.failure;
  EXPECT_EQ(reply.body, "ok");
  EXPECT_EQ(reply.retry_after_seconds, 1.5);
  EXPECT_TRUE(server.request().starts_with("POST /v1/chat/completions HTTP/1.1\r\n"));
  for (const std::string& line : {"Host: " + server.url().authority(), std::string("Authorization: Bearer key-1"),
                                 std::string("Content-Type: application/json"), std::string("Content-Length: 7"),
                                 std::string("Connection: close")})
    EXPECT_NE(server.request().find("\r\n" + line + "\r\n"), std::string::npos) << line;
}

TEST_F(HttpClient, ReadsChunksAndBodiesThatEndWithTheConnection) {
  OneShotServer chunked(saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n"));
  EXPECT_EQ(post(chunked).body, "abc");
  OneShotServer until_end(saying("HTTP/1.0 200 OK\r\n\r\nabc"));
  EXPECT_EQ(post(until_end).body, "abc");
  OneShotServer error(saying("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\nbusy"));
  const HttpReply busy = post(error);
  EXPECT_EQ(busy.status, 503);
  EXPECT_EQ(busy.body, "busy");
  EXPECT_FALSE(busy.retry_after_seconds);
}

TEST_F(HttpClient, AnythingElseIsAFailureWithAReason) {
  const std::string big(1 << 20, 'A');
  const std::string length = "Content-Length: 2\r\n\r\nok";
  for (const std::string& text :
       {std::string(), std::string("hello\r\n\r\n"), std::string("HTTP/1.1 "), std::string("HTTP/9.1 200 OK\r\n\r\n"),
        "HTTP/1.1 200 " + big + "\r\n" + length, "HTTP/1.1 200 OK\r\nX: " + big + "\r\n" + length,
        std::string("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), std::string("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"),
        "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + big, "HTTP/1.1 200 OK\r\n\r\n" + big,
        std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n" + big, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + big,
        std::string(100000, '\0'), big}) {
    OneShotServer server(saying(text));
    const HttpReply reply = post(server);
    EXPECT_EQ(reply.status, 0) << text.substr(0, 60);
    EXPECT_NE(reply.failure, "") << text.substr(0, 60);
  }
}

TEST_F(HttpClient, AFloodOfHeadersIsCutOff) {
  OneShotServer server([](int connection) {
    say(connection, "HTTP/1.1 200 OK\r\n");
    while (say(connection, "X-Header: more and more\r\n")) {
    }
  });
  const HttpReply reply = post(server);
  EXPECT_NE(reply.failure.find("header"), std::string::npos) << reply.failure;
  EXPECT_FALSE(reply.try_again);
}

TEST_F(HttpClient, AHangingOrDrippingServerIsLeftInTime) {
  for (const bool drips : {false, true}) {
    OneShotServer server([drips](int connection) {
      char byte;
      if (!drips) return static_cast<void>(::recv(connection, &byte, 1, 0));
      say(connection, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
      while (say(connection, "a")) std::this_thread::sleep_for(std::chrono::milliseconds(30));
    });
    HttpLimits bounds = limits();
    bounds.timeout_seconds = 0.3;
    const auto start = std::chrono::steady_clock::now();
    const HttpReply reply = post(server, bounds);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
    EXPECT_NE(reply.failure.find("0.3 s"), std::string::npos) << reply.failure;
    EXPECT_FALSE(reply.try_again);
  }
}

TEST_F(HttpClient, AStopIsSeenWhileItWaits) {
  OneShotServer server([](int connection) {
    char byte;
    static_cast<void>(::recv(connection, &byte, 1, 0));
  });
  std::atomic<bool> cancel{false};
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    cancel = true;
  });
  try {
    post(server, limits(), &cancel);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kStopped);
  }
  other.join();
}

TEST_F(HttpClient, ARefusedConnectionMayBeTriedAgain) {
  Url url;
  {
    OneShotServer gone([](int) {});
    url = gone.url();
  }
  const HttpReply reply = http_post_json(url, "", "", "{}", limits(), nullptr);
  EXPECT_EQ(reply.status, 0);
  EXPECT_TRUE(reply.try_again);
  EXPECT_NE(reply.failure.find(url.authority()), std::string::npos) << reply.failure;
}

TEST_F(HttpClient, TlsWithAPlainServerFails) {
  if (!https_is_built()) GTEST_SKIP() << "built without OpenSSL";
  OneShotServer server(saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
  Url url = server.url();
  url.tls = true;
  const HttpReply reply = http_post_json(url, "", "", "{}", limits(), nullptr);
  EXPECT_EQ(reply.status, 0);
  EXPECT_NE(reply.failure.find("TLS"), std::string::npos) << reply.failure;
}

}  // namespace
}  // namespace llava
