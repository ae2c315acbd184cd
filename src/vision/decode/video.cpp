#include "vision/video.h"

#include <algorithm>

#include "base/files.h"
#include "vision/decode/frame_folder.h"

namespace llava {

namespace fs = std::filesystem;

std::string short_list(const std::vector<std::int64_t>& numbers) {
  constexpr std::size_t kShown = 8;
  const std::size_t shown = std::min(numbers.size(), kShown);
  std::string text = fmt::format("{}", fmt::join(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  return numbers.size() > shown ? fmt::format("{}, … ({} in all)", text, numbers.size()) : text;
}

namespace frame_folder {

namespace {

constexpr double kFps = 2.0;  // assumed by the original code for folders of frames

std::vector<fs::path> frames_of(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::string suffix = entry.path().extension().string();
    std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char c) { return std::tolower(c); });
    for (const char* known : {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
      if (suffix == known) files.push_back(entry.path());
  }
  if (error) fail(ErrorKind::kInput, "{}: {}", folder.string(), error.message());
  if (files.empty()) fail(ErrorKind::kInput, "{}: no image files in the folder", folder.string());
  std::sort(files.begin(), files.end());
  return files;
}

ImageSize size_of(const fs::path& file, const ImageLimits& limits) {
  const std::string bytes = read_image_file(file, limits);
  return with_context(file.string(), [&] { return probe_image(bytes, limits); });
}

}  // namespace

VideoInfo probe(const fs::path& folder, const VideoLimits& limits) {
  const std::vector<fs::path> files = frames_of(folder);
  VideoInfo info;
  info.frames = static_cast<std::int64_t>(files.size());
  if (info.frames > limits.max_frames)
    throw Error(ErrorKind::kInput, fmt::format("{}: {} frames are more than {}", folder.string(), info.frames, limits.max_frames),
                kFramesHint);
  info.fps = kFps;
  info.duration = static_cast<double>(info.frames) / kFps;
  for (std::size_t i = 0; info.size == ImageSize{}; ++i) {  // of the first picture that has one
    const auto size = try_outcome([&] { return size_of(files[i], limits.image); });
    if (size.ok()) info.size = size.value();
    if (!size.ok() && i + 1 == files.size()) throw Error(size.error());
  }
  return info;
}

FramesRead read(const fs::path& folder, const std::vector<std::int64_t>& indices,
                const std::function<bool(std::size_t i, Image frame)>& on_frame, const VideoLimits& limits) {
  const std::vector<fs::path> files = frames_of(folder);
  FramesRead result;
  std::vector<std::int64_t> missing;
  std::string why;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const auto index = static_cast<std::size_t>(indices[i]);
    auto frame = index < files.size()
                     ? try_outcome([&] { return load_image(files[index], false, limits.image); })
                     : Error(ErrorKind::kInput, fmt::format("the folder has {} frames", files.size()));
    if (!frame.ok()) {
      missing.push_back(indices[i]);
      if (why.empty()) why = frame.error().what();
    } else if (on_frame(i, std::move(frame).value())) {
      ++result.delivered;
    } else {
      break;
    }
  }
  if (!missing.empty())
    result.problem = fmt::format("{}: frames that cannot be read: {}; the first: {}", folder.string(), short_list(missing), why);
  return result;
}

}  // namespace frame_folder

VideoInfo probe_video(const fs::path& path, const VideoLimits& limits) {
  std::error_code error;
  if (fs::is_directory(path, error)) return frame_folder::probe(path, limits);
  if (!fs::is_regular_file(path, error)) fail(ErrorKind::kInput, "{}: no such file or folder", path.string());
  return film_file::probe(path, limits);
}

FramesRead read_frames(const fs::path& path, const std::vector<std::int64_t>& indices,
                       const std::function<bool(std::size_t i, Image frame)>& on_frame,
                       const VideoLimits& limits) {
  LLAVA_ASSERT(std::is_sorted(indices.begin(), indices.end()) && (indices.empty() || indices.front() >= 0),
               "frame indices ascend");
  std::error_code error;
  if (fs::is_directory(path, error)) return frame_folder::read(path, indices, on_frame, limits);
  if (!fs::is_regular_file(path, error)) fail(ErrorKind::kInput, "{}: no such file or folder", path.string());
  return film_file::read(path, indices, on_frame, limits);
}

}  // namespace llava
