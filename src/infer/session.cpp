#include "infer/session.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include <ATen/ATen.h>

#include "model/kv_cache.h"
#include "model/prefusion.h"
#include "prompt/prompt.h"

namespace llava {

namespace {

using Images = std::vector<std::shared_ptr<const EncodedMedia>>;

constexpr std::int64_t kCacheStep = 4096;  // a cache of this many tokens costs nothing until it is filled

/// The checkpoint's own ends of an answer beside the caller's.
void add_stops(SamplingParams& sampling, const CheckpointInfo& checkpoint) {
  auto& ids = sampling.stop_ids;
  ids.insert(ids.end(), checkpoint.stop_ids.begin(), checkpoint.stop_ids.end());
  for (const std::string& stop : checkpoint.chat_format->stop_strings()) {
    const auto id = checkpoint.tokenizer->token_to_id(stop);
    if (id && checkpoint.tokenizer->is_special(*id)) {
      ids.push_back(*id);
    } else {
      sampling.stop_strings.push_back(stop);
    }
  }
}

/// Hash of the image at each position of a prompt, 0 for text.
std::vector<std::uint64_t> media_hashes(const Prompt& prompt, const Images& images) {
  std::vector<std::uint64_t> hashes(prompt.ids.size(), 0);
  for (const MediaSpan& span : prompt.media_spans)
    std::fill_n(hashes.begin() + static_cast<std::ptrdiff_t>(span.begin), span.len,
                images.at(span.item)->hash | 1);
  return hashes;
}

/// A label such as "Image {}:" with its number.
std::string numbered(std::string label, std::size_t number) {
  if (const std::size_t at = label.find("{}"); at != std::string::npos) label.replace(at, 2, std::to_string(number));
  return label;
}

/// Removes the oldest question and its answer; images of that question move to the front of the next one.
/// False if only one question is left.
bool drop_oldest_turn(Conversation& conversation) {
  auto& messages = conversation.messages;
  const auto is_user = [](const Message& m) { return m.role == "user"; };
  const auto first = std::find_if(messages.begin(), messages.end(), is_user);
  const auto next = first == messages.end() ? first : std::find_if(first + 1, messages.end(), is_user);
  if (next == messages.end()) return false;
  std::vector<Part> images;
  for (const Part& part : first->parts)
    if (part.kind != Part::Kind::kText) images.push_back(part);
  next->parts.insert(next->parts.begin(), images.begin(), images.end());
  messages.erase(first, next);
  return true;
}

}  // namespace

std::int64_t model_context(const DecoderConfig& decoder) {
  const double factor = decoder.rope_scaling.type == RopeType::kDynamic ? decoder.rope_scaling.factor : 1.0;
  return static_cast<std::int64_t>(static_cast<double>(decoder.max_position_embeddings) * factor);
}

void check_can_chat(const CheckpointInfo& checkpoint) {
  if (!checkpoint.tokenizer)
    fail(ErrorKind::kInput, "{}: no tokenizer.json or tokenizer.model; chat needs one",
         checkpoint.folder.string());
  if (!checkpoint.chat_format)
    throw Error(ErrorKind::kInput, fmt::format("{}: no chat template", checkpoint.folder.string()),
                "name a conversation format with --chat-format, for instance vicuna_v1 or qwen_2");
}

ChatSession::ChatSession(ModelBundle& bundle, SessionOptions options)
    : bundle_(bundle), options_(std::move(options)) {
  const CheckpointInfo& checkpoint = bundle.checkpoint;
  check_can_chat(checkpoint);
  options_.sampling.validate();
  add_stops(options_.sampling, checkpoint);
  context_length_ =
      options_.context_length > 0 ? options_.context_length : model_context(checkpoint.model.decoder);
  if (bundle.has_vision() && checkpoint.image_policy) {
    ImagePolicy policy = *checkpoint.image_policy;
    policy.apply_exif_orientation = true;  // a person means the photo as it is shown
    store_ = std::make_unique<ImageStore>(*bundle.model, policy);
  }
  clear();
}

ChatSession::~ChatSession() = default;

void ChatSession::clear() {
  conversation_.messages.clear();
  images_.clear();
  waiting_.clear();
  waiting_times_.clear();
  if (!options_.system.empty())
    conversation_.messages.push_back({"system", {{Part::Kind::kText, options_.system}}});
}

void ChatSession::add_image(const std::filesystem::path& path) {
  if (!store_)
    fail(ErrorKind::kInput, "{} has no vision tower: it cannot look at images",
         bundle_.checkpoint.folder.string());
  waiting_.push_back({store_->load(path, waiting_.size() + 1), ""});
  // Told now, not at the question, so that a long list of images takes no more memory than a full context. The
  // first may have been tiled and gets fewer tokens beside others.
  std::int64_t tokens = 0;
  for (std::size_t i = 1; i < waiting_.size(); ++i) tokens += waiting_[i].media->plan.token_count;
  if (tokens < context_length_) return;
  const std::size_t count = waiting_.size();
  waiting_.pop_back();
  throw Error(ErrorKind::kInput,
              fmt::format("{}: {} images take more than the context's {} tokens", path.string(), count, context_length_),
              "show fewer, or allow more with --context-length N");
}

std::string ChatSession::add_video(const std::filesystem::path& path, const VideoOptions& options) {
  if (!store_)
    fail(ErrorKind::kInput, "{} has no vision tower: it cannot look at videos",
         bundle_.checkpoint.folder.string());
  std::string problem;
  video_ = options;
  const MediaConfig& config = bundle_.checkpoint.model.media;
  auto video = store_->load_video(path, options, &problem);
  if (options_.time_instruction || config.time_instruction) waiting_times_ += time_instruction(video->frames) + "\n";
  if (config.frame_label.empty()) {
    waiting_.push_back({std::move(video), ""});
  } else {
    for (std::size_t i = 0; auto& frame : split_frames(*video))
      waiting_.push_back({std::move(frame), numbered(config.frame_label, ++i)});
  }
  return problem;
}

Message ChatSession::message_of(const std::string& question) const {
  const std::string& label = bundle_.checkpoint.model.media.image_label;
  Message message{"user", {}};
  for (std::size_t i = 0; const Waiting& waiting : waiting_) {
    const bool is_video = waiting.media->is_video();
    std::string before = waiting.label;
    if (before.empty() && !is_video && !label.empty()) before = numbered(label, ++i);
    if (!before.empty() && waiting_.size() > 1) message.parts.push_back({Part::Kind::kText, before});
    message.parts.push_back({is_video ? Part::Kind::kVideo : Part::Kind::kImage, ""});
  }
  message.parts.push_back({Part::Kind::kText, waiting_times_ + question});
  return message;
}

Prompt ChatSession::build(const Conversation& conversation, const Images& images) const {
  std::vector<MediaPlan> plans;
  for (const auto& image : images) plans.push_back(image->plan);
  PromptOptions options;
  options.tokenisation = bundle_.checkpoint.tokenisation;
  return build_prompt(conversation, plans, *bundle_.checkpoint.chat_format, *bundle_.checkpoint.tokenizer,
                      bundle_.checkpoint.model, options);
}

Prompt ChatSession::fit(Conversation& conversation, const Images& images) {
  const std::int64_t answer =
      std::min(options_.sampling.max_new_tokens, std::max<std::int64_t>(context_length_ / 4, 1));
  std::int64_t dropped = 0;
  for (;;) {
    Prompt prompt = build(conversation, images);
    const auto length = static_cast<std::int64_t>(prompt.ids.size());
    const bool fits = length + answer <= context_length_;
    const bool last_resort = length < context_length_;
    if (fits || options_.context == ContextPolicy::kRefuse || !drop_oldest_turn(conversation)) {
      if (!last_resort)
        throw Error(ErrorKind::kInput,
                    fmt::format("the context is full: the prompt has {} tokens, the model takes {}", length,
                                context_length_),
                    "ask a shorter question, use fewer images, or start anew with /clear");
      if (dropped > 0 && options_.notice)
        options_.notice(fmt::format("the context of {} tokens is full: dropped the oldest {}",
                                    context_length_,
                                    dropped == 1 ? "turn" : fmt::format("{} turns", dropped)));
      return prompt;
    }
    ++dropped;
  }
}

std::int64_t ChatSession::reusable(const Prompt& prompt, const Images& images) const {
  // Dynamic rotary scaling rotates all keys by the final length, so stored keys fit no other prompt.
  if (!cache_ || !options_.reuse_cache || bundle_.checkpoint.model.compressor ||
      bundle_.checkpoint.model.decoder.rope_scaling.type == RopeType::kDynamic)
    return 0;
  const std::vector<std::uint64_t> hashes = media_hashes(prompt, images);
  const std::size_t limit = std::min(prompt.ids.size() - 1, cached_ids_.size());
  std::size_t same = 0;
  while (same < limit && prompt.ids[same] == cached_ids_[same] && hashes[same] == cached_media_[same])
    ++same;
  for (const MediaSpan& span : prompt.media_spans)
    if (span.begin < same && same < span.begin + span.len) same = span.begin;
  return static_cast<std::int64_t>(same);
}

at::Tensor ChatSession::fused(const Prompt& prompt, const Images& images) {
  std::vector<std::int64_t> ids = prompt.ids, places;
  for (const MediaSpan& span : prompt.media_spans)
    for (std::size_t i = span.begin; i < span.begin + span.len; ++i) {
      ids[i] = 0;
      places.push_back(static_cast<std::int64_t>(i));
    }
  const at::NoGradGuard no_grad;
  const auto fusion = bundle_.model->begin_fusion(at::tensor(ids, at::kLong), at::tensor(places, at::kLong), {});
  for (const MediaSpan& span : prompt.media_spans) store_->fuse(*images.at(span.item), *fusion, video_);
  return fusion->finish();
}

KvCache* ChatSession::prepare_cache(const Prompt& prompt, const Images& images) {
  const std::int64_t needed = std::min(
      static_cast<std::int64_t>(prompt.ids.size()) + options_.sampling.max_new_tokens, context_length_);
  if (!cache_ || cache_->capacity() < needed) {
    cached_ids_.clear();
    cache_ = bundle_.model->make_cache(1, std::max(needed, std::min(context_length_, kCacheStep)));
  }
  const std::int64_t keep = reusable(prompt, images);
  cache_->truncate(keep);
  cached_ids_.resize(static_cast<std::size_t>(keep));
  return cache_.get();
}

Answer ChatSession::answer(const Prompt& prompt, const Images& images,
                           const std::function<void(std::string_view)>& on_text,
                           const std::atomic<bool>* cancel) {
  CollateRow row;
  row.prompt = &prompt;
  row.form = MediaForm::kRows;
  if (bundle_.checkpoint.model.compressor && !prompt.media_spans.empty()) {
    row.embeds = fused(prompt, images);
  } else {
    for (const MediaSpan& span : prompt.media_spans) row.media.push_back(images.at(span.item)->rows);
  }
  GenerateOptions options;
  options.sampling = options_.sampling;
  options.tokenizer = bundle_.checkpoint.tokenizer.get();
  options.context_length = context_length_;
  options.cancel = cancel;
  options.on_text = [&](std::size_t, std::string_view text) {
    if (on_text) on_text(text);
  };
  KvCache* cache = prepare_cache(prompt, images);
  Answer result;
  std::vector<Generation> generated;
  try {
    generated = generate(*bundle_.model, {&row, 1}, options, result.stats, cache);
  } catch (...) {
    cache_.reset();  // half-filled
    cached_ids_.clear();
    throw;
  }
  cached_ids_ = prompt.ids;
  cached_ids_.insert(cached_ids_.end(), generated[0].ids.begin(), generated[0].ids.end());
  cached_ids_.resize(static_cast<std::size_t>(cache->max_length()));
  cached_media_ = media_hashes(prompt, images);
  cached_media_.resize(cached_ids_.size(), 0);
  result.text = std::move(generated[0].text);
  result.ids = std::move(generated[0].ids);
  result.reason = generated[0].reason;
  return result;
}

Answer ChatSession::ask(const std::string& question, const std::function<void(std::string_view)>& on_text,
                        const std::atomic<bool>* cancel) {
  const auto start = std::chrono::steady_clock::now();
  Conversation conversation = conversation_;
  conversation.messages.push_back(message_of(question));
  Images images = images_;
  for (const Waiting& waiting : waiting_) images.push_back(waiting.media);
  if (images.size() > 1 && bundle_.model->config().media.tile_single_images_only)
    for (auto& image : images)
      if (!image->is_video()) image = store_->load(image->path, images.size());

  const Prompt prompt = fit(conversation, images);
  const double before_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  Answer result = answer(prompt, images, on_text, cancel);
  result.stats.image_ms = store_ ? store_->take_encode_ms() : 0;
  result.stats.first_token_ms = result.stats.image_ms + before_ms + result.stats.prefill_ms;
  conversation.messages.push_back({"assistant", {{Part::Kind::kText, result.text}}});
  conversation_ = std::move(conversation);
  images_ = std::move(images);
  waiting_.clear();
  waiting_times_.clear();
  return result;
}

}  // namespace llava
