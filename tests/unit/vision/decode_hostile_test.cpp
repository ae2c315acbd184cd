#include <gmock/gmock.h>

#include <chrono>
#include <functional>

#include "base/files.h"
#include "base/rng.h"
#include "vision/image.h"
#include "vision_golden.h"

// Broken and hostile files: an Error each time, never a crash, a hang or memory for what the header only
// claims.
namespace llava {
namespace {

using testing::HasSubstr;
using namespace std::string_literals;

struct Failure {
  ErrorKind kind = ErrorKind::kInternal;
  std::string text = "(accepted)";
};

Failure failure_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    return {e.kind(), e.what()};
  }
  return {};
}

Failure decode_failure(const std::string& bytes, const ImageLimits& limits = {}) {
  return failure_of([&] { decode_image(bytes, false, limits); });
}

/// One or two of each kind.
std::vector<std::string> sample_files() {
  return {"baseline_420.jpg", "progressive_422.jpg", "cmyk.jpg",      "exif6.jpg",
          "restart.jpg",      "rgb8_adam7.png",      "palette4.png",  "gray16.png",
          "exif6.png",        "lossy_alpha.webp",    "lossless.webp", "animated_offset.webp",
          "interlaced.gif",   "animated_local.gif",  "index4.bmp",    "rle8.bmp",
          "rgb565.bmp",       "rgb24_os2.bmp"};
}

std::string read_sample(const std::filesystem::path& folder, const std::string& name) {
  return read_file(folder / name);
}

TEST(HostileImages, TruncationIsAnErrorAtEverySixteenth) {
  LLAVA_GOLDEN_OR_SKIP(folder, "vision/files");
  for (const std::string& name : sample_files()) {
    const std::string bytes = read_sample(folder, name);
    for (std::size_t part = 0; part < 16; ++part) {
      const std::string cut = bytes.substr(0, bytes.size() * part / 16);
      const Failure failure = decode_failure(cut);
      // Of an animation the first picture is enough; run-length data may end where the last pixel is known.
      if (name == "animated_local.gif" && part >= 12) continue;
      EXPECT_NE(failure.text, "(accepted)") << name << " cut to " << cut.size() << " of " << bytes.size();
      failure_of([&] { probe_image(cut); });
    }
  }
}

TEST(HostileImages, EveryShorterFileIsAnError) {
  LLAVA_GOLDEN_OR_SKIP(folder, "vision/files");
  for (const std::string name :
       {"baseline_420.jpg", "rgb8.png", "lossless.webp", "plain.gif", "rgb24.bmp"}) {
    const std::string bytes = read_sample(folder, name);
    const std::size_t end_marker = name == "plain.gif" ? 1 : 0;  // giflib stops after the picture
    for (std::size_t size = 0; size + end_marker < bytes.size(); ++size)
      ASSERT_NE(decode_failure(bytes.substr(0, size)).text, "(accepted)") << name << " cut to " << size;
  }
}

TEST(HostileImages, FlippedBitsNeverCrash) {
  LLAVA_GOLDEN_OR_SKIP(folder, "vision/files");
  Rng rng(11);
  ImageLimits limits;
  limits.max_pixels = 1 << 20;
  for (const std::string& name : sample_files()) {
    const std::string bytes = read_sample(folder, name);
    for (int i = 0; i < 400; ++i) {
      std::string broken = bytes;
      for (std::uint64_t flips = 1 + rng.below(3); flips > 0; --flips)
        broken[rng.below(broken.size())] ^= static_cast<char>(1U << rng.below(8));
      failure_of([&] {
        const Image image = decode_image(broken, true, limits);
        ASSERT_EQ(static_cast<std::int64_t>(image.rgb.size()), image.width * image.height * 3);
      });
    }
  }
}

TEST(HostileImages, EveryPngChecksumCounts) {
  LLAVA_GOLDEN_OR_SKIP(folder, "vision/files");
  const std::string bytes = read_sample(folder, "gamma.png");
  for (const char* chunk : {"IHDR", "gAMA", "IDAT", "IEND"}) {
    std::string broken = bytes;
    const std::size_t at = broken.find(chunk);
    const auto length = static_cast<std::size_t>(static_cast<unsigned char>(broken[at - 1]));
    broken[at + 4 + length] ^= 1;
    EXPECT_THAT(decode_failure(broken).text, HasSubstr("CRC error")) << chunk;
  }
}

std::string big_endian(std::uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
          static_cast<char>(v)};
}

/// rgb8.png, whose header then claims another size and has the right checksum for it.
std::string png_claiming(const std::filesystem::path& folder, std::uint32_t width, std::uint32_t height) {
  std::string bytes = read_sample(folder, "rgb8.png");
  bytes.replace(16, 8, big_endian(width) + big_endian(height));
  std::uint32_t crc = 0xFFFFFFFFU;
  for (std::size_t i = 12; i < 29; ++i) {
    crc ^= static_cast<unsigned char>(bytes[i]);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320U : 0);
  }
  bytes.replace(29, 4, big_endian(~crc));
  return bytes;
}

TEST(HostileImages, BombsAreRefusedFromTheHeader) {
  LLAVA_GOLDEN_OR_SKIP(folder, "vision/files");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(decode_failure(png_claiming(folder, 60000, 60000)).text,
              HasSubstr("60000 x 60000 pixels: at most 178956970"));
  EXPECT_THAT(decode_failure(png_claiming(folder, 65501, 1)).text,
              HasSubstr("a side may be at most 65500"));
  EXPECT_THAT(decode_failure(png_claiming(folder, 0, 9)).text, HasSubstr("PNG: "));
  EXPECT_THAT(decode_failure(png_claiming(folder, 0x7FFFFFFF, 0x7FFFFFFF)).text, HasSubstr("PNG: "));
  std::string jpeg = read_sample(folder, "baseline_420.jpg");
  jpeg.replace(jpeg.find("\xFF\xC0"s) + 5, 4, "\xFF\xDC\xFF\xDC"s);
  EXPECT_THAT(decode_failure(jpeg).text, HasSubstr("65500 x 65500 pixels: at most"));
  std::string bmp = read_sample(folder, "rgb24.bmp");
  bmp.replace(18, 8, "\xFF\xFF\xFF\x7F\xFF\xFF\xFF\x7F"s);
  EXPECT_THAT(decode_failure(bmp).text, HasSubstr("BMP: 2147483647 x 2147483647 pixels"));
  bmp.replace(18, 8, "\0\0\0\0\1\0\0\0"s);
  EXPECT_THAT(decode_failure(bmp).text, HasSubstr("0 x 1 pixels"));
  std::string gif = read_sample(folder, "plain.gif");
  gif.replace(6, 4, "\xFF\xFF\xFF\xFF"s);
  EXPECT_THAT(decode_failure(gif).text, HasSubstr("65535 x 65535 pixels"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
}

TEST(HostileImages, LimitsAreTheCallers) {
  LLAVA_GOLDEN_OR_SKIP(folder, "vision/files");
  for (const std::string& name : sample_files()) {
    const std::string bytes = read_sample(folder, name);
    ImageLimits limits;
    limits.max_pixels = 9;
    EXPECT_EQ(decode_failure(bytes, limits).kind, ErrorKind::kInput) << name;
    EXPECT_EQ(failure_of([&] { probe_image(bytes, limits); }).kind, ErrorKind::kInput) << name;
    limits = {};
    limits.max_side = 9;
    EXPECT_THAT(decode_failure(bytes, limits).text, HasSubstr("a side may be at most 9")) << name;
    limits = {};
    limits.max_bytes = 9;
    EXPECT_THAT(decode_failure(bytes, limits).text, HasSubstr("bytes, at most 9 are allowed")) << name;
  }
}

TEST(HostileImages, AScanBombIsStopped) {
  LLAVA_GOLDEN_OR_SKIP(folder, "vision/files");
  const std::string bytes = read_sample(folder, "progressive_444.jpg");
  const std::size_t scan = bytes.find("\xFF\xDA"s);
  std::size_t end = scan + 2;  // the first marker after the scan's data, where FF 00 is a byte of data
  while (bytes[end] != '\xFF' || bytes[end + 1] == '\0') ++end;
  std::string bomb = bytes.substr(0, end);
  for (int i = 0; i < 300; ++i) bomb += bytes.substr(scan, end - scan);
  EXPECT_THAT(decode_failure(bomb + bytes.substr(end)).text, HasSubstr("more than 200 scans"));
}

TEST(HostileImages, UnknownFormatsAreNamedWithTheKnownOnes) {
  const auto text = [](const std::string& bytes) { return decode_failure(bytes).text; };
  EXPECT_EQ(decode_failure("hello").kind, ErrorKind::kUnsupported);
  EXPECT_THAT(text("hello"),
              HasSubstr("not an image in a known format (supported are JPEG, PNG, WebP, GIF and BMP)"));
  EXPECT_THAT(text("\0\0\0\x18"s + "ftypheic" + "\0\0\0\0"s),
              HasSubstr("HEIC is not a supported image format (supported"));
  EXPECT_THAT(text("\0\0\0\x18"s + "ftypavif" + "\0\0\0\0"s), HasSubstr("AVIF is not"));
  EXPECT_THAT(text("II*\0"s), HasSubstr("TIFF is not"));
  EXPECT_THAT(text("MM\0*"s), HasSubstr("TIFF is not"));
  EXPECT_THAT(text("RIFF....AVI "), HasSubstr("not an image in a known format"));
  EXPECT_THAT(text(""), HasSubstr("the image is empty"));
  for (const std::string& magic :
       {"\xFF\xD8\xFF"s, "\x89PNG\r\n\x1A\n"s, "RIFF....WEBP"s, "GIF89a"s, "BM"s})
    EXPECT_EQ(decode_failure(magic).kind, ErrorKind::kFormat) << text(magic);
}

TEST(HostileImages, ErrorsStartWithTheFormat) {
  EXPECT_THAT(decode_failure("BM").text, HasSubstr("BMP: the file is truncated"));
  EXPECT_THAT(decode_failure("GIF89a").text, HasSubstr("GIF: "));
}

}  // namespace
}  // namespace llava
