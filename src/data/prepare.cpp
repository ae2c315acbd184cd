#include "data/prepare.h"

#include <algorithm>

#include "base/error.h"
#include "vision/image.h"
#include "vision/scratch.h"

namespace llava {

PreparedMedia prepare_image(const std::filesystem::path& path, const ImagePolicy& policy,
                            const ModelConfig& model, std::size_t num_images) {
  return with_context(path.string(), [&] {
    Image image = load_image(path, policy.apply_exif_orientation, policy.limits);
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

PreparedSample SamplePreparer::operator()(std::size_t index) const {
  const Sample sample = dataset->load(index, turns, kind);
  return with_context(dataset->describe(index), [&] {
    PreparedSample prepared;
    prepared.index = index;
    std::vector<MediaPlan> plans;
    for (const std::filesystem::path& path : sample.images) {
      const auto cached = find_cached ? find_cached(path) : std::nullopt;
      if (cached) {
        prepared.media.push_back({plan_media(cached->size, policy, model, sample.images.size()), {}, cached->slot});
      } else {
        prepared.media.push_back(prepare_image(path, policy, model, sample.images.size()));
      }
      plans.push_back(prepared.media.back().plan);
    }
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
