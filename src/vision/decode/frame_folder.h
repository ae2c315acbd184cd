#pragma once
#include "vision/video.h"

/// A folder of image files as a film.
namespace llava {

inline constexpr const char* kFramesHint = "--max-video-frames N allows more";

/// "3, 4, 5" of the first few numbers, and how many there are in all.
std::string short_list(const std::vector<std::int64_t>& numbers);

}  // namespace llava

namespace llava::frame_folder {

VideoInfo probe(const std::filesystem::path& folder, const VideoLimits& limits);
FramesRead read(const std::filesystem::path& folder, const std::vector<std::int64_t>& indices,
                const std::function<bool(std::size_t i, Image frame)>& on_frame, const VideoLimits& limits);

}  // namespace llava::frame_folder

namespace llava::film_file {

/// The same of a film file; FFmpeg's, or refusals where it is not built in.
VideoInfo probe(const std::filesystem::path& path, const VideoLimits& limits);
FramesRead read(const std::filesystem::path& path, const std::vector<std::int64_t>& indices,
                const std::function<bool(std::size_t i, Image frame)>& on_frame, const VideoLimits& limits);

}  // namespace llava::film_file
