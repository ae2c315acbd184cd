#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "sha256.h"
#include "support/golden.h"
#include "vision/video.h"

// Films made and decoded by tools/reference/make_video_golden.py with PyAV.
namespace llava {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

using Indices = std::vector<std::int64_t>;

Indices first(std::int64_t count) {
  Indices indices;
  for (std::int64_t i = 0; i < count; ++i) indices.push_back(i);
  return indices;
}

std::string digest(const Image& image) { return test::sha256(image.rgb); }

TEST(Video, FramesAndTimesEqualPyAvsAndTheRules) {
  LLAVA_GOLDEN_OR_SKIP(folder, "video");
  const Json films = read_json_file(folder / "video.json");
  ASSERT_EQ(films.size(), 6U);
  for (const auto& [name, film] : films.items()) {
    const VideoInfo info = probe_video(folder / name);
    EXPECT_EQ(info.frames, film["frames"]) << name;
    EXPECT_EQ(info.problem, "") << name;
    EXPECT_DOUBLE_EQ(info.fps, film["fps"].get<double>()) << name;
    EXPECT_EQ(info.size, (ImageSize{film["width"], film["height"]})) << name;
    int compared = 0;
    const FramesRead read = read_frames(folder / name, first(info.frames), [&](std::size_t i, const Image& frame) {
      const auto key = std::to_string(i);
      if (film["sha256"].contains(key)) {
        EXPECT_EQ(digest(frame), film["sha256"][key]) << name << " frame " << i;
        ++compared;
      }
      return true;
    });
    EXPECT_EQ(read.delivered, info.frames) << name;
    EXPECT_EQ(read.problem, "") << name;
    EXPECT_EQ(compared, static_cast<int>(film["sha256"].size())) << name;
    for (const Json& wanted : film["picks"]) {
      const FramePick pick = pick_frames(info.frames, info.fps,
                                         {.fps = wanted["fps"], .max_frames = wanted["max_frames"], .force_sample = wanted["force"]});
      EXPECT_EQ(pick.indices, wanted["indices"].get<Indices>()) << name << wanted.dump();
      EXPECT_EQ(pick.times, wanted["times"].get<std::vector<double>>()) << name << wanted.dump();
      EXPECT_DOUBLE_EQ(pick.duration, wanted["duration"].get<double>()) << name;
    }
  }
}

TEST(Video, HandsOutTheWantedFramesOnlyAndRepeatsThem) {
  LLAVA_GOLDEN_OR_SKIP(folder, "video");
  std::vector<std::string> found, whole;
  read_frames(folder / "constant.mp4", first(50), [&](std::size_t, const Image& frame) {
    whole.push_back(digest(frame));
    return true;
  });
  read_frames(folder / "constant.mp4", {0, 7, 7, 49}, [&](std::size_t, const Image& frame) {
    found.push_back(digest(frame));
    return true;
  });
  EXPECT_EQ(found, (std::vector<std::string>{whole[0], whole[7], whole[7], whole[49]}));
  int calls = 0;
  const FramesRead stopped = read_frames(folder / "constant.mp4", first(50), [&](std::size_t, const Image&) { return ++calls < 3; });
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(stopped.delivered, 2);
}

TEST(Video, ADamagedFilmGivesWhatCanBeReadAndSaysSo) {
  LLAVA_GOLDEN_OR_SKIP(folder, "video");
  for (const char* name : {"damaged.avi", "damaged.mp4", "cut.avi"}) {
    const std::string said = probe_video(folder / name).problem;
    std::int64_t frames = 0;
    const FramesRead read = read_frames(folder / name, first(90), [&](std::size_t, const Image& frame) {
      EXPECT_EQ(frame.rgb.size(), 64U * 48U * 3U);
      ++frames;
      return true;
    });
    EXPECT_EQ(read.delivered, frames) << name;
    EXPECT_GT(read.delivered, 5) << name;
    EXPECT_NE(read.problem.find(name), std::string::npos) << read.problem;
    if (std::string(name).ends_with("avi")) {  // the sampled frames may all be there: then only this tells
      EXPECT_NE(said.find("its header says 40"), std::string::npos) << said;
    }
  }
}

TEST(Video, ACutContainerThatCountsNoFramesIsReported) {
  LLAVA_GOLDEN_OR_SKIP(folder, "video");
  const fs::path scratch = test::scratch_dir("cut_film");
  fs::copy_file(folder / "variable.mkv", scratch / "cut.mkv");
  fs::resize_file(scratch / "cut.mkv", fs::file_size(scratch / "cut.mkv") / 2);
  const VideoInfo info = probe_video(scratch / "cut.mkv");
  EXPECT_LT(info.frames, 30);
  EXPECT_THAT(info.problem, testing::AllOf(testing::HasSubstr("cut.mkv"), testing::HasSubstr("they end after")));
}

TEST(Video, FramesBehindADamagedPartKeepTheirNumbers) {
  LLAVA_GOLDEN_OR_SKIP(folder, "video");
  constexpr std::int64_t kKeyFrame = 68;  // the first one behind the damage
  std::vector<std::string> whole;
  read_frames(folder / "reordered.mp4", first(90), [&](std::size_t, const Image& frame) {
    whole.push_back(digest(frame));
    return true;
  });
  ASSERT_EQ(whole.size(), 90U);
  std::size_t behind = 0;
  const FramesRead read = read_frames(folder / "damaged.mp4", first(90), [&](std::size_t i, const Image& frame) {
    if (static_cast<std::int64_t>(i) < kKeyFrame) return true;
    EXPECT_EQ(digest(frame), whole[i]) << i;
    ++behind;
    return true;
  });
  EXPECT_EQ(behind, 22U) << read.problem;
  EXPECT_LT(read.delivered, 90);
  EXPECT_NE(read.problem.find("cannot be decoded: "), std::string::npos) << read.problem;
}

TEST(Video, AnUnreadablePictureInAFolderIsLeftOutAndNamed) {
  LLAVA_GOLDEN_OR_SKIP(images, "vision/files");
  const fs::path scratch = test::scratch_dir("broken_frame");
  for (const char* name : {"a.png", "c.png"}) fs::copy_file(images / "rgb8.png", scratch / name);
  std::ofstream(scratch / "b.png") << "no picture";
  std::vector<std::size_t> shown;
  const FramesRead read = read_frames(scratch, first(3), [&](std::size_t i, const Image&) {
    shown.push_back(i);
    return true;
  });
  EXPECT_EQ(shown, (std::vector<std::size_t>{0, 2}));
  EXPECT_EQ(read.delivered, 2);
  EXPECT_NE(read.problem.find("b.png"), std::string::npos) << read.problem;
}

TEST(Video, WhatIsNoFilmIsRefusedByName) {
  LLAVA_GOLDEN_OR_SKIP(folder, "video");
  const fs::path scratch = test::scratch_dir("no_film");
  std::ofstream(scratch / "text.mp4") << "#EXTM3U\n/etc/passwd\n";
  std::ofstream(scratch / "list.m3u8") << "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n";
  std::ofstream(scratch / "empty.mp4");
  fs::create_directories(scratch / "folder");
  for (const fs::path& path : {folder / "sound.wav", folder / "sound.m4a", folder / "cut.mp4", folder / "video.json", scratch / "text.mp4", scratch / "list.m3u8",
                               scratch / "empty.mp4", scratch / "folder", scratch / "missing.mp4"}) {
    try {
      probe_video(path);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(path.filename().string()), std::string::npos) << error.what();
    }
  }
}

/// What probe_video says behind the file's name, and the option that its hint begins with.
std::string refusal(const fs::path& path, const VideoLimits& limits) {
  try {
    probe_video(path, limits);
  } catch (const Error& error) {
    const std::string text = error.what(), name = path.string() + ": ";
    EXPECT_EQ(text.substr(0, name.size()), name);
    return text.substr(std::min(name.size(), text.size())) + "|" + error.hint().substr(0, error.hint().find(' '));
  }
  return "accepted";
}

TEST(Video, LimitsHoldBeforeAnythingIsDecoded) {
  LLAVA_GOLDEN_OR_SKIP(folder, "video");
  VideoLimits few;
  few.max_frames = 10;
  EXPECT_EQ(refusal(folder / "constant.mp4", few), "more than 10 frames|--max-video-frames");
  VideoLimits small;
  small.image.max_pixels = 100;
  EXPECT_EQ(refusal(folder / "constant.mp4", small), "64 x 48 pixels: at most 100 are allowed|--max-pixels");
  VideoLimits narrow;
  narrow.image.max_side = 63;
  EXPECT_EQ(refusal(folder / "constant.mp4", narrow), "64 x 48 pixels: a side may be at most 63|--max-side");
  VideoLimits hasty;
  hasty.max_seconds = 1e-9;
  EXPECT_THAT(refusal(folder / "constant.mp4", hasty), testing::HasSubstr("took more than 1e-09 seconds|--max-video-seconds"));
}

/// A copy of a film with other bytes at an offset behind a mark.
fs::path patched(const fs::path& film, const fs::path& copy, const std::string& mark, std::size_t offset, const std::string& bytes) {
  std::string content = read_file(film);
  content.replace(content.find(mark) + offset, bytes.size(), bytes);
  std::ofstream(copy, std::ios::binary) << content;
  return copy;
}

TEST(Video, HeadersThatClaimTooMuchAreRefused) {
  LLAVA_GOLDEN_OR_SKIP(folder, "video");
  const fs::path scratch = test::scratch_dir("claims");
  const std::string size = "\xFF\xFF\0\0"s;
  const fs::path huge = patched(folder / "one.avi", scratch / "huge.avi", "strf", 12, size + size + "\1\0\x18\0MJPG"s);
  EXPECT_EQ(refusal(huge, {}), "65535 x 65535 pixels: a side may be at most 65500|--max-side");
  // 4 KB with one chunk of 60 million frames of one byte: an index of 1.4 GB if it were believed
  const std::string many = "\3\x93\x87\0"s;
  patched(folder / "constant.mp4", scratch / "first.mp4", "stsz", 8, "\0\0\0\1"s + many);
  const fs::path film = patched(scratch / "first.mp4", scratch / "many.mp4", "stsc", 12, "\0\0\0\1"s + many + "\0\0\0\1"s);
  EXPECT_THAT(refusal(film, {}), testing::Not(testing::HasSubstr("accepted")));
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  EXPECT_LT(usage.ru_maxrss, 1 << 20) << "KB";
}

TEST(Video, AFolderIsAFilmOfItsImagesInNameOrder) {
  LLAVA_GOLDEN_OR_SKIP(images, "vision/files");
  const fs::path scratch = test::scratch_dir("frames");
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(images))
    if (entry.path().extension() == ".png" && files.size() < 3) files.push_back(entry.path());
  ASSERT_EQ(files.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) fs::copy_file(files[i], scratch / ("b" + std::to_string(2 - i) + ".png"));
  std::ofstream(scratch / "notes.txt") << "no frame";
  const VideoInfo info = probe_video(scratch);
  EXPECT_EQ(info.frames, 3);
  EXPECT_DOUBLE_EQ(info.fps, 2.0);
  std::vector<std::string> found;
  read_frames(scratch, {0, 2}, [&](std::size_t, const Image& frame) {
    found.push_back(digest(frame));
    return true;
  });
  EXPECT_EQ(found, (std::vector<std::string>{digest(load_image(files[2])), digest(load_image(files[0]))}));
}

}  // namespace
}  // namespace llava
