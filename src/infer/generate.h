#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "batch/collate.h"
#include "config/sampling_params.h"
#include "model/llava_model.h"
#include "text/tokenizer.h"

namespace llava {

/// Why an answer ended.
enum class StopReason { kStopId, kStopString, kMaxNewTokens, kContextFull, kCancelled };
const char* to_string(StopReason reason);  ///< "stop", "stop", "length", "context", "cancelled"

/// Where the time went. Milliseconds are wall time.
struct GenerationStats {
  std::int64_t prompt_tokens = 0;  ///< of all rows, image features included
  std::int64_t image_tokens = 0;
  std::int64_t reused_tokens = 0;  ///< prompt tokens that were in the cache already
  std::int64_t new_tokens = 0;
  double image_ms = 0;  ///< vision tower, for images not encoded before
  double prefill_ms = 0;
  double decode_ms = 0;       ///< everything after the first token
  double first_token_ms = 0;  ///< images + prompt + first token (set by ChatSession)
};

struct Generation {
  std::vector<std::int64_t> ids;  ///< without the stop id
  std::string text;
  StopReason reason = StopReason::kMaxNewTokens;
  std::int64_t stop_id = -1;  ///< the id that ended it; -1: something else did
};

struct GenerateOptions {
  SamplingParams sampling;               ///< row r draws with seed + r
  const Tokenizer* tokenizer = nullptr;  ///< for text and stop strings; may be null
  std::int64_t context_length = 0;       ///< longest sequence; 0: no limit
  /// New text of row `row`, as it becomes certain; may be empty.
  std::function<void(std::size_t row, std::string_view text)> on_text;
  const std::atomic<bool>* cancel = nullptr;  ///< looked at before every step
};

/// Answers of n prompts at once. With `cache` (one row only) the first cache->max_length() tokens of the
/// prompt are taken as stored already and only the rest is computed; the cache must have room and
/// afterwards holds prompt and answer, except the last drawn token. Error{kInput} for a prompt that fills
/// the context.
std::vector<Generation> generate(LlavaModel& model, std::span<const CollateRow> rows,
                                 const GenerateOptions& options, GenerationStats& stats,
                                 KvCache* cache = nullptr);

}  // namespace llava
