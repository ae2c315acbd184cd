#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "config/image_policy.h"
#include "model/llava_model.h"
#include "vision/media_plan.h"
#include "vision/video.h"

namespace llava {

/// One image or video as the model sees it. Equal contents have equal hashes.
struct EncodedMedia {
  std::uint64_t hash = 0;
  std::filesystem::path path;
  MediaPlan plan;
  at::Tensor rows;   ///< [n,D] as they stand in the prompt; undefined where those depend on its text
  at::Tensor features;  ///< [views,P,C] of the tower, of an image of a model with pre-fusion (LLaVA-Mini)
  FramePick frames;  ///< of a video: those that could be read
  std::string problem;  ///< why others could not
  bool is_video() const { return plan.layout.video; }
};

/// The frames of a video each as an image of its own, for models that label them (MediaConfig::frame_label).
std::vector<std::shared_ptr<const EncodedMedia>> split_frames(const EncodedMedia& video);

/// Which frames of a video to show. `num_frames` > 0: so many, spread evenly; 0: by the model's rule, or
/// all of a folder of frames.
struct VideoOptions {
  std::int64_t num_frames = 0;
  VideoLimits limits;
  /// Told before each frame that is encoded how many were; false stops with Error{kStopped}.
  std::function<bool(std::int64_t done, std::int64_t total)> on_frame;
};
/// The frames of a film or folder that `options` and the model's rule pick. Reads headers only.
FramePick pick_video_frames(const std::filesystem::path& path, const ModelConfig& model,
                            const VideoOptions& options, VideoInfo* info = nullptr);

/// Decodes and encodes images and keeps the most recent ones, so that a follow-up question or the next line
/// about the same photo does not run the vision tower again. Files are recognised by their contents.
class ImageStore {
 public:
  /// Keeps at most `capacity` images.
  ImageStore(LlavaModel& model, const ImagePolicy& policy, std::size_t capacity = 64);

  /// One of a prompt's `num_images` images, on which depends whether some models tile it. Errors name the
  /// file: missing, not an image, too large.
  std::shared_ptr<const EncodedMedia> load(const std::filesystem::path& path, std::size_t num_images = 1);
  /// Reads, encodes and pools a video a few frames at a time. A damaged film gives the frames that can be
  /// read (FramePick::indices says which) and `problem` says why; none at all is an Error{kFormat}.
  std::shared_ptr<const EncodedMedia> load_video(const std::filesystem::path& path,
                                                 const VideoOptions& options, std::string* problem);
  /// LLaVA-Mini: gives `fusion` the media's features, a film's a few frames at a time.
  void fuse(const EncodedMedia& media, PromptFusion& fusion, const VideoOptions& options);
  /// Milliseconds spent encoding since the last call.
  double take_encode_ms();

 private:
  LlavaModel& model_;
  ImagePolicy policy_;
  std::size_t capacity_;
  double encode_ms_ = 0;
  std::shared_ptr<const EncodedMedia> find(std::uint64_t hash);
  void keep(std::shared_ptr<const EncodedMedia> media);

  std::list<std::shared_ptr<const EncodedMedia>> recent_;  // newest first
};

/// Pixels [views,3,H,W] float32 of an image file or a film, and its plan.
struct ImagePixels {
  MediaPlan plan;
  at::Tensor pixels;
};
/// All picked frames at once, for `inspect`.
ImagePixels load_video_pixels(const std::filesystem::path& path, const ImagePolicy& policy,
                              const ModelConfig& model, const VideoOptions& options);
ImagePixels load_pixels(const std::filesystem::path& path, const ImagePolicy& policy,
                        const ModelConfig& model, std::size_t num_images = 1);

}  // namespace llava
