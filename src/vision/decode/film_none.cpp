#include "base/error.h"
#include "vision/decode/frame_folder.h"

namespace llava::film_file {

namespace {

[[noreturn]] void refuse(const std::filesystem::path& path) {
  throw Error(ErrorKind::kUnsupported, path.string() + ": this llava was built without FFmpeg",
              "give a folder of frames, or configure with -DLLAVA_WITH_VIDEO=ON");
}

}  // namespace

VideoInfo probe(const std::filesystem::path& path, const VideoLimits&) { refuse(path); }

FramesRead read(const std::filesystem::path& path, const std::vector<std::int64_t>&,
                const std::function<bool(std::size_t, Image)>&, const VideoLimits&) {
  refuse(path);
}

}  // namespace llava::film_file
