#include <algorithm>

#include "base/error.h"
#include "prompt/prompt.h"
#include "prompt/prompt_tokens.h"

namespace llava {

namespace {

constexpr std::int64_t kMaxMediaTokens = std::int64_t{1} << 24;

void check_media(std::size_t expected, const std::vector<Segment>& segments,
                 const std::vector<MediaPlan>& plans) {
  if (expected != plans.size())
    fail(ErrorKind::kInput, "the conversation has {} images, but {} were given", expected, plans.size());
  const auto rendered = static_cast<std::size_t>(
      std::count_if(segments.begin(), segments.end(), [](const Segment& s) { return s.is_media(); }));
  if (rendered != plans.size())
    fail(ErrorKind::kInput, "the chat template writes {} of the conversation's {} images and videos",
         rendered, plans.size());
}

/// Appends tokens [first, last) with every media token repeated as its plan says.
void append(Prompt& prompt, const PromptTokens& tokens, const std::vector<std::int64_t>& labels,
            std::size_t first, std::size_t last, const std::vector<Segment>& segments,
            const std::vector<MediaPlan>& plans) {
  for (std::size_t i = first; i < last; ++i) {
    std::size_t count = 1;
    if (tokens.is_media[i]) {
      const std::size_t item = segments[static_cast<std::size_t>(tokens.owners[i])].media_index;
      const std::int64_t planned = plans.at(item).token_count;
      if (planned < 1 || planned > kMaxMediaTokens)
        fail(ErrorKind::kInput, "image {} has {} tokens", item + 1, planned);
      count = static_cast<std::size_t>(planned);
      prompt.media_spans.push_back({prompt.ids.size(), count, item, plans.at(item).layout});
    }
    prompt.ids.insert(prompt.ids.end(), count, tokens.ids[i]);
    if (!labels.empty()) prompt.labels.insert(prompt.labels.end(), count, labels[i]);
  }
}

void append_positions(Prompt& prompt, std::size_t first) {
  while (prompt.positions.size() < prompt.ids.size())
    prompt.positions.push_back(static_cast<std::int64_t>(first++));
}

void check_length(Prompt& prompt, const PromptOptions& options) {
  const auto limit = static_cast<std::size_t>(std::max<std::int64_t>(options.max_length, 0));
  if (options.max_length == 0 || prompt.ids.size() <= limit) return;
  if (options.mode == PromptMode::kGenerate)
    fail(ErrorKind::kInput, "the prompt has {} tokens, more than {}", prompt.ids.size(), limit);
  for (const MediaSpan& span : prompt.media_spans)
    if (span.begin + span.len > limit)
      fail(ErrorKind::kInput, "image {} ends at token {}, behind the limit of {}", span.item + 1,
           span.begin + span.len, limit);
  prompt.ids.resize(limit);
  prompt.labels.resize(limit);
  prompt.positions.resize(limit);
  if (!prompt.branch.empty()) prompt.branch.resize(limit);
}

void check_labels(const Prompt& prompt) {
  if (std::all_of(prompt.labels.begin(), prompt.labels.end(),
                  [](std::int64_t l) { return l == kIgnoreIndex; }))
    fail(ErrorKind::kInput, "nothing to learn: no token of an answer is among the {} tokens",
         prompt.ids.size());
}

/// A model without a token for videos was trained on images: to its template a video is one.
Conversation as_trained(Conversation conversation, const ModelConfig& model) {
  if (model.media.video_token_id >= 0) return conversation;
  for (Message& message : conversation.messages)
    for (Part& part : message.parts)
      if (part.kind == Part::Kind::kVideo) part.kind = Part::Kind::kImage;
  return conversation;
}

/// LLaVA v0 and v1: image tokens of their own around every image (mm_use_im_start_end).
std::vector<Segment> with_start_end(const std::vector<Segment>& segments) {
  std::vector<Segment> out;
  for (const Segment& segment : segments) {
    const auto add = [&](const char* token) { out.push_back({.text = token, .turn = segment.turn}); };
    if (segment.is_media()) add("<im_start>");
    out.push_back(segment);
    if (segment.is_media()) add("<im_end>");
  }
  return out;
}

Branch make_branch(const Conversation& given, const std::vector<MediaPlan>& plans,
                   const ChatFormat& format, const Tokenizer& tokenizer, const ModelConfig& model,
                   const PromptOptions& options) {
  Branch branch;
  const Conversation conversation = as_trained(given, model);
  const bool is_training = options.mode == PromptMode::kTrain;
  branch.segments = is_training ? format.render_training(conversation) : format.render(conversation, true);
  check_media(conversation.num_media(), branch.segments, plans);
  if (model.media.image_start_end) branch.segments = with_start_end(branch.segments);
  branch.tokens =
      tokenise(branch.segments, tokenizer, media_token_ids(model),
               {.tokenisation = options.tokenisation, .user_text_special = options.user_text_special});
  if (is_training)
    branch.labels = make_labels(branch.tokens, branch.segments, conversation, tokenizer,
                                options.upstream_masks ? format.upstream_mask() : UpstreamMask{});
  return branch;
}

/// Appends branches[begin, end), which agree in their first `common` tokens: those once, as a node all of
/// them see, then the rest of each. The first `shared` tokens stand in the prompt's prefix already.
void append_group(Prompt& prompt, const std::vector<Branch>& branches, std::size_t begin, std::size_t end,
                  std::size_t shared, std::size_t common, int group, const std::vector<MediaPlan>& plans,
                  std::size_t prefix_len) {
  const Branch& first = branches[begin];
  append(prompt, first.tokens, first.labels, shared, common, first.segments, plans);
  append_positions(prompt, prefix_len);
  prompt.branch.resize(prompt.ids.size(), branch_id(group, 0));
  const std::size_t node_len = prefix_len + (common - shared);
  for (std::size_t i = begin; i < end; ++i) {
    append(prompt, branches[i].tokens, branches[i].labels, common, branches[i].tokens.ids.size(),
           branches[i].segments, plans);
    append_positions(prompt, node_len);
    prompt.branch.resize(prompt.ids.size(), branch_id(group, static_cast<int>(i - begin) + 1));
  }
}

/// The pairs over their shared prefix, neighbours with the same question over their shared question; an
/// empty prompt if the prefix does not hold all media.
Prompt join_branches(const std::vector<Branch>& branches, const std::vector<MediaPlan>& plans) {
  const std::size_t shared = shared_prefix(branches, 0, branches.size());
  const Branch& first = branches.front();
  Prompt prompt;
  append(prompt, first.tokens, first.labels, 0, shared, first.segments, plans);
  if (prompt.media_spans.size() != plans.size()) return {};
  append_positions(prompt, 0);
  const std::size_t prefix_len = prompt.ids.size();
  prompt.branch.assign(prefix_len, 0);
  int group = 0;
  for (std::size_t begin = 0, end = 0; begin < branches.size(); begin = end) {
    end = begin + 1;
    while (end < branches.size() && branches[end].question == branches[begin].question) ++end;
    const std::size_t common = end - begin == 1 ? shared : shared_prefix(branches, begin, end);
    append_group(prompt, branches, begin, end, shared, common, ++group, plans, prefix_len);
  }
  return prompt;
}

Prompt build_independent(const Conversation& conversation, const std::vector<MediaPlan>& plans,
                         const ChatFormat& format, const Tokenizer& tokenizer, const ModelConfig& model,
                         const PromptOptions& options) {
  std::vector<Branch> branches;
  if (conversation.messages.size() > 2 * kBranchGroup)
    fail(ErrorKind::kInput, "a record of {} messages has too many turns to train independently",
         conversation.messages.size());
  for (const Conversation& pair : independent_pairs(conversation)) {
    branches.push_back(make_branch(pair, plans, format, tokenizer, model, options));
    branches.back().question = pair.messages[pair.messages.size() - 2].text();
  }
  return branches.empty() ? Prompt{} : join_branches(branches, plans);
}

}  // namespace

Prompt build_prompt(const Conversation& conversation, const std::vector<MediaPlan>& plans,
                    const ChatFormat& format, const Tokenizer& tokenizer, const ModelConfig& model,
                    const PromptOptions& options) {
  if (conversation.messages.empty()) fail(ErrorKind::kInput, "the conversation has no messages");
  if (options.max_length < 0) fail(ErrorKind::kUsage, "max_length is {}", options.max_length);
  const bool is_training = options.mode == PromptMode::kTrain;
  Prompt prompt;
  if (is_training && options.independent_turns)
    prompt = build_independent(conversation, plans, format, tokenizer, model, options);
  if (prompt.ids.empty()) {
    const Branch whole = make_branch(conversation, plans, format, tokenizer, model, options);
    append(prompt, whole.tokens, whole.labels, 0, whole.tokens.ids.size(), whole.segments, plans);
    append_positions(prompt, 0);
  }
  check_length(prompt, options);
  if (is_training) check_labels(prompt);
  return prompt;
}

Prompt prompt_from_text(std::string_view text, const std::vector<MediaPlan>& plans,
                        const Tokenizer& tokenizer, const ModelConfig& model,
                        ImageTokenisation tokenisation) {
  static constexpr std::string_view kImage = "<image>", kVideo = "<video>";
  std::vector<Segment> segments;
  std::size_t num_media = 0;
  while (!text.empty()) {
    const std::size_t image = text.find(kImage), video = text.find(kVideo), at = std::min(image, video);
    if (at > 0) segments.push_back({Segment::Kind::kText, std::string(text.substr(0, at))});
    if (at == std::string_view::npos) break;
    const bool is_image = image < video;
    segments.push_back({is_image ? Segment::Kind::kImage : Segment::Kind::kVideo,
                        std::string(is_image ? kImage : kVideo), false, false, num_media++});
    text.remove_prefix(at + kImage.size());
  }
  if (num_media != plans.size())
    fail(ErrorKind::kInput, "the prompt has {} <image> and <video>, but {} images were given", num_media,
         plans.size());
  const PromptTokens tokens =
      tokenise(segments, tokenizer, media_token_ids(model),
               {.tokenisation = tokenisation, .keep_rendered_bos = false, .add_end = true});
  Prompt prompt;
  append(prompt, tokens, {}, 0, tokens.ids.size(), segments, plans);
  append_positions(prompt, 0);
  return prompt;
}

}  // namespace llava
