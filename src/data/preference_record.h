#pragma once
#include <filesystem>

#include "base/json.h"

namespace llava {

struct Sample;

/// What a stage reads a record as.
enum class RecordKind {
  kInstruction,  ///< conversations with answers (sample_from_record)
  kPair,         ///< a prompt with a better and a worse answer (dpo)
  kLabelled,     ///< a prompt, one answer, and whether it is good (kto)
  kPrompt,       ///< a prompt, and perhaps the right answer (grpo)
};

/// A preference record as a sample. The prompt is `conversations` that end with a question, `prompt` (text
/// or messages), or `question`; answers are `chosen` and `rejected` (text, a turn, or messages that end
/// with one), RLHF-V's `text` (a JSON text with all three), LLaVA-RLHF's `output_1`, `output_2`,
/// `preference`; `completion` and `label` for kLabelled; `answer`, `solution` or a last answer of the
/// conversation for kPrompt. A prompt without <image> marks gets them in front. Error{kInput} for what is
/// missing, an empty answer, two equal answers, a label that is not true or false.
Sample preference_from_record(const Json& record, const std::filesystem::path& image_root, RecordKind kind);

}  // namespace llava
