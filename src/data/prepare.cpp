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

PreparedSample SamplePreparer::operator()(std::size_t index) const {
  const Sample sample = dataset->load(index, turns);
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
    prepared.prompt = build_prompt(sample.conversation, plans, *format, *tokenizer, model, prompt);
    const auto& labels = prepared.prompt.labels;
    if (std::all_of(labels.begin(), labels.end(), [](std::int64_t label) { return label == kIgnoreIndex; }))
      fail(ErrorKind::kInput, "nothing to learn from: no answer, or truncation at {} tokens cut it off",
           prompt.max_length);
    return prepared;
  });
}

}  // namespace llava
