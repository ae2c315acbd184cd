#include "http/data_uri.h"

#include "base/base64.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace llava {
namespace {

using namespace std::string_view_literals;

TEST(DataUri, Base64IsThatOfTheStandard) {
  // RFC 4648, section 10
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64("foob"), "Zm9vYg==");
  EXPECT_EQ(base64("fooba"), "Zm9vYmE=");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64("\xff\xfe\x00\xfb"sv), "//4A+w==");
}

TEST(DataUri, TheTypeIsThatOfTheFirstBytesNotOfTheName) {
  EXPECT_EQ(image_mime_type("\xFF\xD8\xFF\xE0"sv), "image/jpeg");
  EXPECT_EQ(image_mime_type("\x89PNG\r\n\x1A\n...."sv), "image/png");
  EXPECT_EQ(image_mime_type("RIFF....WEBPVP8 "sv), "image/webp");
  EXPECT_EQ(image_mime_type("GIF89a"sv), "image/gif");
  EXPECT_EQ(image_mime_type("BM6"sv), "image/bmp");
  EXPECT_EQ(image_data_uri("GIF87a"), "data:image/gif;base64,R0lGODdh");
}

TEST(DataUri, WhatIsNoImageIsRefused) {
  for (const std::string_view bytes : {""sv, "text"sv, "RIFF....WAVE"sv, "RIFF"sv, "\xFF\xD8"sv, "\x89PNG"sv}) {
    EXPECT_EQ(image_mime_type(bytes), "");
    EXPECT_THROW(image_data_uri(bytes), Error);
  }
}

}  // namespace
}  // namespace llava
