#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace llava {

/// How tokens are drawn. Names and meanings are HF's GenerationConfig / OpenAI's.
struct SamplingParams {
  double temperature = 0.0;  ///< 0: greedy
  double top_p = 1.0;
  std::int64_t top_k = 0;  ///< 0: off
  double min_p = 0.0;
  double repetition_penalty = 1.0;  ///< HF: over prompt and answer ids
  std::uint64_t seed = 0;
  std::int64_t max_new_tokens = 256;
  std::vector<std::int64_t> stop_ids;     ///< ends the answer; not part of it
  std::vector<std::string> stop_strings;  ///< likewise, matched in the decoded text
  bool ignore_eos = false;
  void validate() const;  ///< Error{kUsage} naming the value and its range
};

}  // namespace llava
