#include <algorithm>

#include "prompt/prompt_tokens.h"

namespace llava {

namespace {

/// Version 0 of the original code: the system's text and every turn are tokenised alone, each with its BOS,
/// and counted. The counts drift away from the true borders; the first two tokens of a human turn stay
/// trained ("###").
void mark_counted_turns(const PromptTokens& tokens, const std::vector<Segment>& segments,
                        const Conversation& conversation, const Tokenizer& tokenizer,
                        std::vector<std::int64_t>& labels) {
  const auto count = [&](int turn) {
    std::vector<Segment> own;
    for (const Segment& segment : segments) {
      if (turn < 0 && segment.turn >= 0 &&
          conversation.messages[static_cast<std::size_t>(segment.turn)].role != "system")
        break;
      if (turn < 0 || segment.turn == turn) own.push_back(segment);
    }
    const PromptTokensOptions alone{.tokenisation = ImageTokenisation::kChunks};
    return tokenise(own, tokenizer, {}, alone).ids.size();
  };
  std::copy(tokens.ids.begin(), tokens.ids.end(), labels.begin());
  std::size_t at = count(-1);
  std::fill_n(labels.begin(), std::min(at, labels.size()), kIgnoreIndex);
  for (std::size_t turn = 0; turn < conversation.messages.size(); ++turn) {
    const std::string& role = conversation.messages[turn].role;
    if (role == "system") continue;
    const std::size_t end = std::min(at + count(static_cast<int>(turn)), labels.size());
    for (std::size_t i = at + 2; role == "user" && i < end; ++i) labels[i] = kIgnoreIndex;
    at = end;
  }
}

/// LLaVA-NeXT's Qwen and Llama 3 code: whole assistant turns, and the role tokens wherever they stand.
void mark_role_tokens(const PromptTokens& tokens, const std::vector<Segment>& segments,
                      const Conversation& conversation, const Tokenizer& tokenizer,
                      const std::vector<std::string>& role_tokens, std::vector<std::int64_t>& labels) {
  std::vector<std::int64_t> always;
  for (const std::string& text : role_tokens) {
    const std::vector<std::int64_t> ids = tokenizer.encode(text, {false, true});
    if (ids.size() == 1) always.push_back(ids[0]);
  }
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const int turn = tokens.owners[i] < 0 ? -1 : segments[static_cast<std::size_t>(tokens.owners[i])].turn;
    const bool is_answer =
        turn >= 0 && conversation.messages[static_cast<std::size_t>(turn)].role == "assistant";
    if (is_answer || std::find(always.begin(), always.end(), tokens.ids[i]) != always.end())
      labels[i] = tokens.ids[i];
  }
}

}  // namespace

std::vector<std::int64_t> make_labels(const PromptTokens& tokens, const std::vector<Segment>& segments,
                                      const Conversation& conversation, const Tokenizer& tokenizer,
                                      const UpstreamMask& upstream) {
  std::vector<std::int64_t> labels(tokens.ids.size(), kIgnoreIndex);
  switch (upstream.kind) {
    case UpstreamMask::Kind::kCountedTurns:
      mark_counted_turns(tokens, segments, conversation, tokenizer, labels);
      break;
    case UpstreamMask::Kind::kRoleTokens:
      mark_role_tokens(tokens, segments, conversation, tokenizer, upstream.tokens, labels);
      break;
    case UpstreamMask::Kind::kNone:
      for (std::size_t i = 0; i < labels.size(); ++i)
        if (tokens.owners[i] >= 0 && segments[static_cast<std::size_t>(tokens.owners[i])].trained)
          labels[i] = tokens.ids[i];
      break;
  }
  for (std::size_t i = 0; i < labels.size(); ++i)
    if (tokens.is_media[i]) labels[i] = kIgnoreIndex;
  return labels;
}

}  // namespace llava
