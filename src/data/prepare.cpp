#include "data/prepare.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "base/error.h"
#include "vision/image.h"
#include "vision/scratch.h"

namespace llava {

namespace {

constexpr std::uint64_t kProbedBytes = 64 << 10;

/// The first `size` bytes of a part of a file.
std::string read_part(const MediaRef& image, std::uint64_t size) {
  std::ifstream file(image.path, std::ios::binary);
  std::string bytes(size, '\0');
  file.seekg(static_cast<std::streamoff>(image.offset));
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size)))
    fail(ErrorKind::kInput, "{} bytes at {} cannot be read", size, image.offset);
  return bytes;
}

}  // namespace

std::string read_media(const MediaRef& image, const ImageLimits& limits) {
  if (image.bytes) return *image.bytes;
  if (image.size == 0) return read_image_file(image.path, limits);
  if (image.size > static_cast<std::uint64_t>(limits.max_bytes))
    fail(ErrorKind::kInput, "{} bytes are too many for an image; at most {} are allowed", image.size,
         limits.max_bytes);
  return read_part(image, image.size);
}

ImageSize probe_media(const MediaRef& image, const ImageLimits& limits, bool apply_exif_orientation) {
  std::error_code error;
  std::uint64_t size = image.size;
  if (!image.bytes && size == 0) size = std::filesystem::file_size(image.path, error);
  if (!image.bytes && !error && size > kProbedBytes &&
      size <= static_cast<std::uint64_t>(limits.max_bytes)) {
    const auto found = try_outcome(
        [&] { return probe_image(read_part(image, kProbedBytes), limits, apply_exif_orientation); });
    if (found.ok()) return found.value();  // else the header may be longer, or the file bad
  }
  return probe_image(read_media(image, limits), limits, apply_exif_orientation);
}

PreparedMedia prepare_image(const MediaRef& source, const ImagePolicy& policy, const ModelConfig& model,
                            std::size_t num_images) {
  return with_context(source.describe(), [&] {
    Image image =
        decode_image(read_media(source, policy.limits), policy.apply_exif_orientation, policy.limits);
    PreparedMedia media;
    media.plan = plan_media({image.width, image.height}, policy, model, num_images);
    media.pixels = render_pixels(image, media.plan, policy);
    keep_scratch(std::move(image.rgb));
    return media;
  });
}

namespace {

/// Labels of the last answer only: what stands before it belongs to the prompt.
void keep_last_answer(Prompt& prompt) {
  const auto is_label = [](std::int64_t label) { return label != kIgnoreIndex; };
  const auto end = std::find_if(prompt.labels.rbegin(), prompt.labels.rend(), is_label);
  const auto begin = std::find_if_not(end, prompt.labels.rend(), is_label);
  std::fill(prompt.labels.begin(), begin.base(), kIgnoreIndex);
}

}  // namespace

void SamplePreparer::set_limits(const MediaLimitsConfig& limits) {
  policy.limits = {limits.max_file_bytes, limits.max_pixels, limits.max_side};
  film.num_frames = limits.num_frames;
  film.limits = {policy.limits, limits.max_video_frames, limits.max_video_seconds};
}

/// The sample's media in the order of their marks; what the text says of its films is put into the
/// conversations.
std::vector<PreparedMedia> SamplePreparer::prepare_media(Sample& sample) const {
  std::vector<PreparedMedia> media;
  std::vector<FramePick> films;
  std::size_t next_image = 0;
  for (const Message& message : sample.conversation.messages)
    for (const Part& part : message.parts) {
      if (part.kind == Part::Kind::kImage) {
        const MediaRef& image = sample.images.at(next_image++);
        const auto cached = find_cached ? find_cached(image) : std::nullopt;
        if (cached) {
          media.push_back(
              {plan_media(cached->size, policy, model, sample.images.size()), {}, cached->slot});
        } else {
          media.push_back(prepare_image(image, policy, model, sample.images.size()));
        }
      } else if (part.kind == Part::Kind::kVideo) {
        PreparedFilm shown = prepare_film(sample.videos.at(films.size()), policy, model, film);
        films.push_back(std::move(shown.frames));
        std::move(shown.media.begin(), shown.media.end(), std::back_inserter(media));
      }
    }
  if (!films.empty()) show_films(sample.conversation, films, model.media);
  if (!films.empty() && !sample.rejected.messages.empty()) show_films(sample.rejected, films, model.media);
  return media;
}

PreparedSample SamplePreparer::operator()(std::size_t index) const {
  Sample sample = dataset->load(index, turns, kind);
  return with_context(dataset->describe(index), [&] {
    PreparedSample prepared;
    prepared.index = index;
    prepared.media = prepare_media(sample);
    std::vector<MediaPlan> plans;
    for (const PreparedMedia& media : prepared.media) plans.push_back(media.plan);
    const auto build = [&](const Conversation& conversation) {
      return build_prompt(conversation, plans, *format, *tokenizer, model, prompt);
    };
    prepared.prompt = build(sample.conversation);
    prepared.desirable = sample.desirable;
    prepared.answer = sample.answer;
    if (kind == RecordKind::kPrompt) {
      if (needs_answer && sample.answer.empty())
        fail(ErrorKind::kInput, "no \"answer\" or \"solution\", which a reward compares with");
      return prepared;
    }
    if (kind == RecordKind::kPair) keep_last_answer(prepared.rejected = build(sample.rejected));
    if (kind != RecordKind::kInstruction) keep_last_answer(prepared.prompt);
    for (const Prompt* p : {&prepared.prompt, &prepared.rejected})
      if (!p->ids.empty() && std::all_of(p->labels.begin(), p->labels.end(),
                                         [](std::int64_t label) { return label == kIgnoreIndex; }))
        fail(ErrorKind::kInput, "nothing to learn from: no answer, or truncation at {} tokens cut it off",
             prompt.max_length);
    return prepared;
  });
}

}  // namespace llava
