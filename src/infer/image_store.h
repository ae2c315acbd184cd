#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <string>

#include "config/image_policy.h"
#include "model/llava_model.h"
#include "vision/media_plan.h"

namespace llava {

/// One image as the model sees it. Equal contents have equal hashes.
struct EncodedImage {
  std::uint64_t hash = 0;
  std::filesystem::path path;
  MediaPlan plan;
  at::Tensor features;  ///< [tiles,P,C] of the tower, before the connector
};

/// Decodes and encodes images and keeps the most recent ones, so that a follow-up question or the next line
/// about the same photo does not run the vision tower again. Files are recognised by their contents.
class ImageStore {
 public:
  /// Keeps at most `capacity` images.
  ImageStore(LlavaModel& model, const ImagePolicy& policy, std::size_t capacity = 64);

  /// One of a prompt's `num_images` images, on which depends whether some models tile it. Errors name the
  /// file: missing, not an image, too large.
  std::shared_ptr<const EncodedImage> load(const std::filesystem::path& path, std::size_t num_images = 1);
  /// Milliseconds spent encoding since the last call.
  double take_encode_ms();

 private:
  LlavaModel& model_;
  ImagePolicy policy_;
  std::size_t capacity_;
  double encode_ms_ = 0;
  std::list<std::shared_ptr<const EncodedImage>> recent_;  // newest first
};

/// Pixels [tiles,3,H,W] float32 of an image file, and its plan.
struct ImagePixels {
  MediaPlan plan;
  at::Tensor pixels;
};
ImagePixels load_pixels(const std::filesystem::path& path, const ImagePolicy& policy,
                        const ModelConfig& model, std::size_t num_images = 1);

}  // namespace llava
