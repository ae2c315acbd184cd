#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/files.h"
#include "prompt/prompt.h"
#include "support/golden.h"
#include "text/conversation.h"

namespace llava::test {

/// The tokenizer of a golden checkpoint; null if it is not here. Loaded once.
inline std::shared_ptr<const Tokenizer> golden_tokenizer(const std::string& checkpoint) {
  static std::map<std::string, std::shared_ptr<const Tokenizer>> loaded;
  auto& tokenizer = loaded[checkpoint];
  if (!tokenizer)
    if (const auto folder = find_golden("checkpoints/" + checkpoint)) tokenizer = load_tokenizer(*folder);
  return tokenizer;
}

inline std::vector<MediaPlan> plans(const std::vector<std::int64_t>& token_counts) {
  std::vector<MediaPlan> out;
  for (const std::int64_t count : token_counts) {
    MediaPlan plan;
    plan.token_count = count;
    out.push_back(plan);
  }
  return out;
}

inline ModelConfig model_with(std::int64_t image_token_id) {
  ModelConfig model;
  model.image_token_id = image_token_id;
  return model;
}

inline Message message(const std::string& role, const std::string& text, std::size_t num_images = 0) {
  Message out{role, {}};
  for (std::size_t i = 0; i < num_images; ++i) out.parts.push_back({Part::Kind::kImage, ""});
  out.parts.push_back({Part::Kind::kText, text});
  return out;
}

}  // namespace llava::test

#define LLAVA_TOKENIZER_OR_SKIP(variable, checkpoint)                                   \
  const auto variable##_ptr = ::llava::test::golden_tokenizer(checkpoint);              \
  if (!variable##_ptr) GTEST_SKIP() << "checkpoint " << (checkpoint) << " is not here"; \
  const Tokenizer& variable = *variable##_ptr
