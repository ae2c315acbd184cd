#include "infer/image_store.h"

#include <ATen/ATen.h>

#include <chrono>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/hash.h"
#include "vision/image.h"

namespace llava {

namespace {

constexpr std::uint64_t kOneView = 0x9E3779B97F4A7C15;  // sets an image apart from its tiled self

ImagePixels pixels_of(std::string_view bytes, const ImagePolicy& policy, const ModelConfig& model,
                      std::size_t num_images) {
  const Image image = decode_image(bytes, policy.apply_exif_orientation, policy.limits);
  ImagePixels result;
  result.plan = plan_media({image.width, image.height}, policy, model, num_images);
  const std::vector<float> values = render_pixels(image, result.plan, policy);
  const auto& plan = result.plan;
  result.pixels = at::empty({plan.num_tiles, 3, plan.tile_height, plan.tile_width}, at::kFloat);
  LLAVA_ASSERT(static_cast<std::size_t>(result.pixels.numel()) == values.size(),
               "pixels fill the plan's tiles");
  std::copy(values.begin(), values.end(), result.pixels.data_ptr<float>());
  return result;
}

std::string read_image_bytes(const std::filesystem::path& path, const ImagePolicy& policy) {
  return read_file(path, static_cast<std::size_t>(policy.limits.max_bytes));
}

}  // namespace

ImagePixels load_pixels(const std::filesystem::path& path, const ImagePolicy& policy,
                        const ModelConfig& model, std::size_t num_images) {
  const std::string bytes = read_image_bytes(path, policy);
  return with_context(path.string(), [&] { return pixels_of(bytes, policy, model, num_images); });
}

ImageStore::ImageStore(LlavaModel& model, const ImagePolicy& policy, std::size_t capacity)
    : model_(model), policy_(policy), capacity_(capacity) {}

std::shared_ptr<const EncodedImage> ImageStore::load(const std::filesystem::path& path,
                                                           std::size_t num_images) {
  const std::string bytes = read_image_bytes(path, policy_);
  const bool one_view = num_images > 1 && model_.config().media.tile_single_images_only;
  const std::uint64_t hash = hash_text(bytes) ^ (one_view ? kOneView : 0);
  for (auto it = recent_.begin(); it != recent_.end(); ++it) {
    if ((*it)->hash != hash) continue;
    recent_.splice(recent_.begin(), recent_, it);
    return recent_.front();
  }
  const ImagePixels image =
      with_context(path.string(), [&] { return pixels_of(bytes, policy_, model_.config(), num_images); });
  const auto start = std::chrono::steady_clock::now();
  const at::NoGradGuard no_grad;
  auto encoded = std::make_shared<EncodedImage>();
  encoded->hash = hash;
  encoded->path = path;
  encoded->plan = image.plan;
  encoded->features = model_.encode_vision(image.pixels);
  encode_ms_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  recent_.push_front(std::move(encoded));
  if (recent_.size() > capacity_) recent_.pop_back();
  return recent_.front();
}

double ImageStore::take_encode_ms() { return std::exchange(encode_ms_, 0.0); }

}  // namespace llava
