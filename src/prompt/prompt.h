#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "text/chat_format.h"
#include "text/tokenizer.h"
#include "vision/media_plan.h"

namespace llava {

inline constexpr std::int64_t kIgnoreIndex = -100;

/// Where one media item's features stand: ids[begin, begin+len) are all the image token.
struct MediaSpan {
  std::size_t begin = 0, len = 0, item = 0;
  bool operator==(const MediaSpan&) const = default;
};

/// Text and media interleaved; the one hand-over from text and vision to the model.
struct Prompt {
  std::vector<std::int64_t> ids;
  std::vector<std::int64_t> labels;        ///< kTrain only; -100 where nothing is learnt; same length as ids
  std::vector<std::int64_t> positions;     ///< [T] rotary positions; 0..T-1 unless branches restart them
  std::vector<std::int32_t> branch;        ///< empty: plain causal. Else per token: 0 shared prefix, b > 0 sees the prefix and branch b only
  std::vector<MediaSpan> media_spans;
};

enum class PromptMode { kGenerate, kTrain };

/// How text around images is tokenised: HF tokenises one string; the original LLaVA tokenises each chunk alone (spec 3.3).
enum class ImageTokenisation { kWholeString, kChunks };

struct PromptOptions {
  PromptMode mode = PromptMode::kGenerate;
  ImageTokenisation tokenisation = ImageTokenisation::kWholeString;
  bool user_text_special = false;          ///< parse special tokens inside user text
  bool independent_turns = false;          ///< kTrain: question/answer turns become branches over the shared image prefix
  std::int64_t max_length = 0;             ///< 0: none; else truncate on the right AFTER expansion (an image is never cut: dropped whole with an error)
};

/// Renders, tokenises, expands every image token to its plan's token_count and marks the labels, in one pass.
/// Error{kInput} if the number of images in the conversation differs from plans.size().
Prompt build_prompt(const Conversation& conversation, const std::vector<MediaPlan>& plans, const ChatFormat& format,
                    const Tokenizer& tokenizer, const ModelConfig& model, const PromptOptions& options);

/// Raw prompt text with <image> where media go, tokenised as HF's tokenizer(text) does (post-processor's BOS/EOS added).
Prompt prompt_from_text(std::string_view text, const std::vector<MediaPlan>& plans, const Tokenizer& tokenizer,
                        const ModelConfig& model, ImageTokenisation tokenisation);

}  // namespace llava
