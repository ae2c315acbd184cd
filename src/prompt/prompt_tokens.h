#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "prompt/prompt.h"

namespace llava {

/// Token ids before media are expanded: a media item is one token. `owners[i]` is the segment that token i
/// belongs to, that of its last byte; -1 for tokens the tokenizer's post-processor adds.
struct PromptTokens {
  std::vector<std::int64_t> ids;
  std::vector<int> owners;
  std::vector<bool> is_media;
  void push(std::int64_t id, int owner, bool media = false) {
    ids.push_back(id);
    owners.push_back(owner);
    is_media.push_back(media);
  }
};

/// Ids that stand for one feature of an image or a video.
struct MediaTokenIds {
  std::int64_t image = 0, video = 0;
};
MediaTokenIds media_token_ids(const ModelConfig& model);

struct PromptTokensOptions {
  ImageTokenisation tokenisation = ImageTokenisation::kWholeString;
  bool user_text_special = false;
  bool keep_rendered_bos = true;  ///< a BOS at the beginning of the text counts as the post-processor's
  bool add_end = false;           ///< the post-processor's EOS too
};

/// Tokenises rendered segments; media become `media_ids`. Error{kUnsupported} if the tokenizer does
/// not keep a media placeholder in one piece.
PromptTokens tokenise(const std::vector<Segment>& segments, const Tokenizer& tokenizer,
                      const MediaTokenIds& media_ids, const PromptTokensOptions& options);

/// The labels of the unexpanded tokens: the answers and their end tokens, or what `upstream` says.
std::vector<std::int64_t> make_labels(const PromptTokens& tokens, const std::vector<Segment>& segments,
                                      const Conversation& conversation, const Tokenizer& tokenizer,
                                      const UpstreamMask& upstream);

/// The conversation's question/answer pairs as conversations of their own, each with the images; empty
/// where PromptOptions::independent_turns does not apply.
std::vector<Conversation> independent_pairs(const Conversation& conversation);

/// One pair, tokenised and labelled.
struct Branch {
  PromptTokens tokens;
  std::vector<std::int64_t> labels;
  std::vector<Segment> segments;
  std::string question;  ///< neighbours with equal questions share its tokens
};

/// How many tokens branches[begin, end) share at their beginning, such that none of them is trained and at
/// least one token that is not trained stays in every branch (the first one has no predecessor of its own
/// to learn from).
std::size_t shared_prefix(const std::vector<Branch>& branches, std::size_t begin, std::size_t end);

}  // namespace llava
