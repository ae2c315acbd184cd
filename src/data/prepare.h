#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "config/image_policy.h"
#include "config/model_config.h"
#include "data/loader.h"
#include "data/prepare_film.h"

namespace llava {

/// What the feature cache knows of an image.
struct CachedImage {
  std::int64_t slot = 0;
  ImageSize size;
};

/// Turns a sample into ids, labels and pixels; torch-free and thread-safe, shared by the loader's threads.
struct SamplePreparer {
  const Dataset* dataset = nullptr;
  TurnMode turns = TurnMode::kConversation;
  RecordKind kind = RecordKind::kInstruction;
  bool needs_answer = false;  ///< kPrompt: a record without the right answer is an error
  std::shared_ptr<const ChatFormat> format;
  std::shared_ptr<const Tokenizer> tokenizer;
  ModelConfig model;
  ImagePolicy policy;
  PromptOptions prompt;
  FilmOptions film;
  /// Looks an image up in the feature cache; empty function: no cache.
  std::function<std::optional<CachedImage>(const MediaRef&)> find_cached;

  /// Error{kInput|kFormat|…} naming record and file: unreadable image, counts that differ, no label left
  /// after truncation.
  PreparedSample operator()(std::size_t index) const;

  /// Takes over what a run allows of media.
  void set_limits(const MediaLimitsConfig& limits);

 private:
  std::vector<PreparedMedia> prepare_media(Sample& sample) const;
};

/// The encoded bytes of an image, wherever they lie.
std::string read_media(const MediaRef& image, const ImageLimits& limits);

/// Its size from its header: only the file's first part is read where that is enough.
ImageSize probe_media(const MediaRef& image, const ImageLimits& limits, bool apply_exif_orientation);

/// An image through the policy: its plan and pixels.
PreparedMedia prepare_image(const MediaRef& source, const ImagePolicy& policy, const ModelConfig& model,
                            std::size_t num_images = 1);

}  // namespace llava
