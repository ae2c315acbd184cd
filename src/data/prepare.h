#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "config/image_policy.h"
#include "config/model_config.h"
#include "data/loader.h"

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
  /// Looks an image up in the feature cache; empty function: no cache.
  std::function<std::optional<CachedImage>(const std::filesystem::path&)> find_cached;

  /// Error{kInput|kFormat|…} naming record and file: unreadable image, counts that differ, no label left
  /// after truncation.
  PreparedSample operator()(std::size_t index) const;
};

/// An image file through the policy: its plan and pixels.
PreparedMedia prepare_image(const std::filesystem::path& path, const ImagePolicy& policy,
                            const ModelConfig& model, std::size_t num_images = 1);

}  // namespace llava
