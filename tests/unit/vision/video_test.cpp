#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/json.h"
#include "sha256.h"
#include "support/golden.h"
#include "vision/video.h"

// Films made and decoded by tools/reference/make_video_golden.py with PyAV.
namespace llava {
namespace {

namespace fs = std::filesystem;

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
  ASSERT_EQ(films.size(), 5U);
  for (const auto& [name, film] : films.items()) {
    const VideoInfo info = probe_video(folder / name);
    EXPECT_EQ(info.frames, film["frames"]) << name;
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
  for (const char* name : {"damaged.avi", "cut.avi"}) {
    std::int64_t frames = 0;
    const FramesRead read = read_frames(folder / name, first(40), [&](std::size_t, const Image& frame) {
      EXPECT_EQ(frame.rgb.size(), 64U * 48U * 3U);
      ++frames;
      return true;
    });
    EXPECT_EQ(read.delivered, frames) << name;
    EXPECT_GT(read.delivered, 5) << name;
    EXPECT_TRUE(read.delivered == 40 || read.problem.find(name) != std::string::npos) << read.problem;
  }
}

TEST(Video, WhatIsNoFilmIsRefusedByName) {
  LLAVA_GOLDEN_OR_SKIP(folder, "video");
  const fs::path scratch = test::scratch_dir("no_film");
  std::ofstream(scratch / "text.mp4") << "#EXTM3U\n/etc/passwd\n";
  std::ofstream(scratch / "list.m3u8") << "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n";
  std::ofstream(scratch / "empty.mp4");
  fs::create_directories(scratch / "folder");
  for (const fs::path& path : {folder / "sound.wav", folder / "cut.mp4", folder / "video.json", scratch / "text.mp4", scratch / "list.m3u8",
                               scratch / "empty.mp4", scratch / "folder", scratch / "missing.mp4"}) {
    try {
      probe_video(path);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(path.filename().string()), std::string::npos) << error.what();
    }
  }
}

TEST(Video, LimitsHoldBeforeAnythingIsDecoded) {
  LLAVA_GOLDEN_OR_SKIP(folder, "video");
  VideoLimits few;
  few.max_frames = 10;
  EXPECT_THROW(probe_video(folder / "constant.mp4", few), Error);
  VideoLimits small;
  small.image.max_pixels = 100;
  EXPECT_THROW(probe_video(folder / "constant.mp4", small), Error);
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
