#include <gmock/gmock.h>

#include "vision/image.h"

namespace llava {
namespace {

TEST(DecodeImage, SaysThatThisBuildReadsNoImages) {
  const auto error_of = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUnsupported);
      return e.what();
    }
    return "(accepted)";
  };
  EXPECT_THAT(error_of([] { decode_image("GIF89a"); }), testing::HasSubstr("built without image decoding"));
  EXPECT_THAT(error_of([] { probe_image("GIF89a"); }), testing::HasSubstr("built without image decoding"));
}

}  // namespace
}  // namespace llava
