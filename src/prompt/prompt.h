#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "config/branch.h"
#include "config/model_config.h"
#include "text/chat_format.h"
#include "text/tokenizer.h"
#include "vision/media_plan.h"

namespace llava {

inline constexpr std::int64_t kIgnoreIndex = -100;

/// Where one media item's features stand: ids[begin, begin+len) are all the image token.
struct MediaSpan {
  std::size_t begin = 0, len = 0, item = 0;
  MediaLayout layout;  ///< how the item's views become those features
  bool operator==(const MediaSpan&) const = default;
};

/// Text and media interleaved; the one hand-over from text and vision to the model.
struct Prompt {
  std::vector<std::int64_t> ids;
  std::vector<std::int64_t> labels;     ///< kTrain only; -100 where nothing is learnt; same length as ids
  std::vector<std::int64_t> positions;  ///< [T] rotary positions; 0..T-1 unless branches restart them
  /// Empty: plain causal. Else a tree of two levels, a branch_id() per token: 0 is the shared prefix; a
  /// token of branch_id(g, m) sees, of what stands before it, the prefix, its group's node branch_id(g, 0)
  /// and its own branch.
  std::vector<std::int32_t> branch;
  std::vector<MediaSpan> media_spans;
};

enum class PromptMode { kGenerate, kTrain };

/// How the rendered text is tokenised.
enum class ImageTokenisation {
  kWholeString,  ///< HF: one string in which <image> is a token
  kChunks,       ///< original LLaVA: each chunk between images alone (spec 3.3)
  kSegments,     ///< trained and other stretches alone, joined; the tokenizer's dummy prefix replaces an
                 ///< answer's leading space
};

struct PromptOptions {
  PromptMode mode = PromptMode::kGenerate;
  ImageTokenisation tokenisation = ImageTokenisation::kWholeString;
  bool user_text_special = false;  ///< parse special tokens inside user text
  /// kTrain: the question/answer pairs become branches over a shared prefix: the tokens with which all the
  /// pairs, each rendered as a conversation of its own with the images, begin. A conversation with one
  /// pair, or with images elsewhere than before the first question's text, is built as usual
  /// (Prompt::branch stays empty).
  bool independent_turns = false;
  /// Labels as the original training code has them where that differs from "answers and end tokens": see
  /// UpstreamMask.
  bool upstream_masks = false;
  /// 0: none. kTrain: truncate on the right AFTER expansion; cutting an image, or all answers, is an
  /// Error{kInput}. kGenerate: a longer prompt is an Error{kInput}.
  std::int64_t max_length = 0;
};

/// Renders, tokenises, expands every image token to its plan's token_count and marks the labels, in one
/// pass. A BOS comes first if the tokenizer adds one, unless the template rendered it. kTrain renders as
/// the format trains and needs an answer. Error{kInput} if the number of images and videos in the
/// conversation, or in what the format rendered of it, differs from plans.size().
Prompt build_prompt(const Conversation& conversation, const std::vector<MediaPlan>& plans,
                    const ChatFormat& format, const Tokenizer& tokenizer, const ModelConfig& model,
                    const PromptOptions& options);

/// Raw prompt text with <image> where media go, tokenised as HF's tokenizer(text) does (post-processor's
/// BOS/EOS added).
Prompt prompt_from_text(std::string_view text, const std::vector<MediaPlan>& plans,
                        const Tokenizer& tokenizer, const ModelConfig& model,
                        ImageTokenisation tokenisation);

}  // namespace llava
