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

/// The runs of supervised tokens decode to `expected`. A run may lack one leading space, which
/// sentencepiece's decoder drops, and may bring its header's line break, where that is one piece with the
/// answer's own.
inline void expect_supervised(const Prompt& prompt, const Tokenizer& tokenizer, std::string_view expected) {
  for (std::size_t t = 0; t < prompt.ids.size();) {
    if (prompt.labels[t] == kIgnoreIndex) {
      ++t;
      continue;
    }
    std::vector<std::int64_t> run;
    for (; t < prompt.ids.size() && prompt.labels[t] != kIgnoreIndex; ++t) {
      ASSERT_EQ(prompt.labels[t], prompt.ids[t]);
      run.push_back(prompt.ids[t]);
    }
    std::string decoded = tokenizer.decode(run);
    if (!expected.starts_with(decoded) && expected.starts_with(" ")) expected.remove_prefix(1);
    if (!expected.starts_with(decoded) && decoded.starts_with("\n\n")) decoded.erase(0, 1);
    ASSERT_TRUE(expected.starts_with(decoded))
        << "'" << decoded << "' is not the beginning of '" << expected << "'";
    expected.remove_prefix(decoded.size());
  }
  ASSERT_EQ(expected, "");
}

}  // namespace llava::test

#define LLAVA_TOKENIZER_OR_SKIP(variable, checkpoint)                                   \
  const auto variable##_ptr = ::llava::test::golden_tokenizer(checkpoint);              \
  if (!variable##_ptr) GTEST_SKIP() << "checkpoint " << (checkpoint) << " is not here"; \
  const Tokenizer& variable = *variable##_ptr
