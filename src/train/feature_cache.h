#pragma once
#include <ATen/core/Tensor.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/files.h"
#include "config/image_policy.h"
#include "data/prepare.h"
#include "model/llava_model.h"

namespace llava {

struct DecodedImage;
struct FeatureFiles;

/// Features of a frozen vision tower, computed once per image and kept in a file: slots of equal size, and
/// an index line for each image (path, size and time of change, width and height). Survives interruption;
/// an image that changed is computed again. Folder: <output>/features-<hash of tower weights, tower config,
/// image policy and dtype>/{features.bin,index.jsonl}.
class FeatureCache {
 public:
  FeatureCache(const std::filesystem::path& output, LlavaModel& model, const ImagePolicy& policy,
               c10::ScalarType dtype);

  struct FillOptions {
    std::int64_t threads = 2;
    std::int64_t max_bytes = 0;
    const std::atomic<bool>* stop = nullptr;
  };
  /// Computes what is missing for `images`; unreadable ones are left out (the loader reports them). False:
  /// the file would grow over max_bytes, or an image has more than one tile; nothing was computed then.
  /// Error{kStopped} when asked to stop.
  bool fill(const std::vector<MediaRef>& images, LlavaModel& model, const FillOptions& options);

  /// Thread-safe after fill().
  std::optional<CachedImage> find(const MediaRef& image) const;
  /// Features [1,P,C] of a slot: a view on the map.
  at::Tensor features(std::int64_t slot) const;
  std::size_t size() const { return images_.size(); }

 private:
  void read_index();
  std::vector<MediaRef> missing_of(const std::vector<MediaRef>& images) const;
  void encode(std::vector<DecodedImage>& batch, LlavaModel& model, FeatureFiles& files);
  std::int64_t slot_bytes() const;

  ImagePolicy policy_;
  std::int64_t rows_ = 0, width_ = 0;
  c10::ScalarType dtype_;
  std::filesystem::path folder_;
  std::unordered_map<std::string, CachedImage> images_;  ///< by path, size and time of change
  std::int64_t num_slots_ = 0;
  std::unique_ptr<MappedFile> map_;
};

}  // namespace llava
