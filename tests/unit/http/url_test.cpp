#include "http/url.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace llava {
namespace {

TEST(Url, IsReadIntoItsParts) {
  const Url plain = parse_url("http://127.0.0.1:8000/v1/");
  EXPECT_FALSE(plain.tls);
  EXPECT_EQ(plain.host, "127.0.0.1");
  EXPECT_EQ(plain.port, 8000);
  EXPECT_EQ(plain.path, "/v1");
  EXPECT_EQ(plain.authority(), "127.0.0.1:8000");

  const Url tls = parse_url("https://api.example.com/openai/v1");
  EXPECT_TRUE(tls.tls);
  EXPECT_EQ(tls.port, 443);
  EXPECT_EQ(tls.path, "/openai/v1");
  EXPECT_EQ(tls.authority(), "api.example.com");

  const Url six = parse_url("http://[::1]:81");
  EXPECT_EQ(six.host, "::1");
  EXPECT_EQ(six.path, "");
  EXPECT_EQ(six.authority(), "[::1]:81");
}

TEST(Url, WhatIsNoneIsAUsageErrorThatNamesIt) {
  for (const std::string text :
       {"", "127.0.0.1:8000", "ftp://host/v1", "http://", "http:///v1", "http://:80", "http://host:0", "http://host:65536",
        "http://host:8x", "http://host:", "http://user:key@host/v1", "http://host/v1?key=1", "http://host/v1#a", "http://ho st",
        "http://host/\r\nX: y", "http://[::1", "http://[::1]x", "http://h\xc3\xb6st"}) {
    try {
      parse_url(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos);
    }
  }
  EXPECT_THROW(parse_url("http://" + std::string(5000, 'a')), Error);
}

TEST(Url, LoopbackIsThisMachineOnly) {
  for (const char* text : {"http://127.0.0.1:1", "http://localhost", "http://[::1]/v1", "http://127.8.0.1"})
    EXPECT_TRUE(is_loopback(parse_url(text))) << text;
  for (const char* text : {"http://127.example.com", "http://10.0.0.1", "http://localhost.example.com"})
    EXPECT_FALSE(is_loopback(parse_url(text))) << text;
}

}  // namespace
}  // namespace llava
