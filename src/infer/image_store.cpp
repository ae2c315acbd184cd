#include "infer/image_store.h"

#include <ATen/ATen.h>

#include <chrono>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "model/prefusion.h"
#include "vision/film.h"
#include "vision/image.h"

namespace llava {

namespace {

constexpr std::uint64_t kOneView = 0x9E3779B97F4A7C15;  // sets an image apart from its tiled self

constexpr std::int64_t kVideoBatch = 8;  // frames that are in memory at once

/// Adds the time it lives to a sum of milliseconds.
class Stopwatch {
 public:
  explicit Stopwatch(double& sum) : sum_(sum), start_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() {
    sum_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& sum_;
  std::chrono::steady_clock::time_point start_;
};

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

}  // namespace

ImagePixels load_pixels(const std::filesystem::path& path, const ImagePolicy& policy,
                        const ModelConfig& model, std::size_t num_images) {
  const std::string bytes = read_image_file(path, policy.limits);
  return with_context(path.string(), [&] { return pixels_of(bytes, policy, model, num_images); });
}

ImageStore::ImageStore(LlavaModel& model, const ImagePolicy& policy, std::size_t capacity)
    : model_(model), policy_(policy), capacity_(capacity) {}

std::shared_ptr<const EncodedMedia> ImageStore::find(std::uint64_t hash) {
  for (auto it = recent_.begin(); it != recent_.end(); ++it) {
    if ((*it)->hash != hash) continue;
    recent_.splice(recent_.begin(), recent_, it);
    return recent_.front();
  }
  return nullptr;
}

void ImageStore::keep(std::shared_ptr<const EncodedMedia> media) {
  recent_.push_front(std::move(media));
  if (recent_.size() > capacity_) recent_.pop_back();
}

std::shared_ptr<const EncodedMedia> ImageStore::load(const std::filesystem::path& path,
                                                     std::size_t num_images) {
  const std::string bytes = read_image_file(path, policy_.limits);
  const bool one_view = num_images > 1 && model_.config().media.tile_single_images_only;
  const std::uint64_t hash = hash_text(bytes) ^ (one_view ? kOneView : 0);
  if (auto found = find(hash)) return found;
  const ImagePixels image =
      with_context(path.string(), [&] { return pixels_of(bytes, policy_, model_.config(), num_images); });
  const Stopwatch watch(encode_ms_);
  const at::NoGradGuard no_grad;
  auto encoded = std::make_shared<EncodedMedia>();
  encoded->hash = hash;
  encoded->path = path;
  encoded->plan = image.plan;
  const at::Tensor features = model_.encode_vision(image.pixels);
  if (model_.config().compressor) {
    encoded->features = features;
  } else {
    encoded->rows = model_.finish_media(features, {image.plan.layout});
  }
  keep(encoded);
  return encoded;
}

namespace {

ImagePolicy frame_policy(ImagePolicy policy) {
  policy.aspect_ratio = AspectRatio::kSquare;
  return policy;
}

/// A frame as the tower takes it, [views,3,H,W].
at::Tensor frame_pixels(const Image& frame, const ImagePolicy& policy, const ModelConfig& model) {
  const std::int64_t side = model.tower->input_size;
  return at::tensor(render_frame(frame, policy, model), at::kFloat).view({-1, 3, side, side});
}

/// Collects frames and turns every few of them into rows, or gives their features to a prompt's fusion.
class VideoEncoder {
 public:
  VideoEncoder(LlavaModel& model, const ImagePolicy& policy, PromptFusion* fusion = nullptr)
      : model_(model), policy_(frame_policy(policy)), fusion_(fusion) {}

  void add(const Image& frame) {
    if (static_cast<std::int64_t>(waiting_.size()) == kVideoBatch) flush(false);  // one always waits for the end
    waiting_.push_back(frame_pixels(frame, policy_, model_.config()));
    size_ = {frame.width, frame.height};
  }

  /// All rows and the plan of the `frames` frames that came.
  void finish(std::int64_t frames, EncodedMedia& media) {
    media.plan = plan_video(size_, frames, policy_, model_.config());
    flush(true);
    media.rows = at::cat(parts_);
  }

  /// The last frames' features for the fusion.
  void finish() {
    if (!waiting_.empty()) flush(true);
  }

 private:
  void flush(bool last) {
    const at::NoGradGuard no_grad;
    const at::Tensor features = model_.encode_vision(at::cat(waiting_));
    const auto frames = static_cast<std::int64_t>(waiting_.size());
    waiting_.clear();
    if (fusion_ != nullptr) return fusion_->add(features);
    MediaLayout layout = plan_video(size_, frames, policy_, model_.config(), encoded_).layout;
    encoded_ += frames;
    if (layout.newline == Newline::kEnd && !last) {
      layout.newline = Newline::kNone;
      --layout.token_count;
    }
    parts_.push_back(model_.finish_media(features, {layout}));
  }

  LlavaModel& model_;
  ImagePolicy policy_;
  PromptFusion* fusion_;
  std::int64_t encoded_ = 0;  // frames that are rows
  ImageSize size_;
  std::vector<at::Tensor> waiting_, parts_;
};

}  // namespace

namespace {

bool report(const VideoOptions& options, std::size_t done, std::size_t total) {
  if (options.on_frame && !options.on_frame(static_cast<std::int64_t>(done), static_cast<std::int64_t>(total)))
    fail(ErrorKind::kStopped, "stopped after {} of {} frames", done, total);
  return true;
}

}  // namespace

FramePick pick_video_frames(const std::filesystem::path& path, const ModelConfig& model,
                            const VideoOptions& options, VideoInfo* info) {
  return pick_film_frames(path, model, options.num_frames, options.limits, info);
}

ImagePixels load_video_pixels(const std::filesystem::path& path, const ImagePolicy& policy,
                              const ModelConfig& model, const VideoOptions& options) {
  const FramePick pick = pick_video_frames(path, model, options);
  const ImagePolicy each = frame_policy(policy);
  std::vector<at::Tensor> frames;
  ImageSize size;
  const FramesRead read = read_frames(
      path, pick.indices,
      [&](std::size_t, const Image& frame) {
        frames.push_back(frame_pixels(frame, each, model));
        size = {frame.width, frame.height};
        return true;
      },
      options.limits);
  if (!read.problem.empty()) fail(ErrorKind::kFormat, "{}", read.problem);
  return {plan_video(size, static_cast<std::int64_t>(frames.size()), policy, model), at::cat(frames)};
}

std::shared_ptr<const EncodedMedia> ImageStore::load_video(const std::filesystem::path& path,
                                                           const VideoOptions& options,
                                                           std::string* problem) {
  VideoInfo info;
  const FramePick pick = pick_video_frames(path, model_.config(), options, &info);
  std::error_code error;
  const auto stamp = std::filesystem::last_write_time(path, error).time_since_epoch().count();
  std::string key = fmt::format("{}|{}", path.string(), stamp);
  for (const std::int64_t index : pick.indices) key += fmt::format(",{}", index);
  const std::uint64_t hash = hash_text(key);
  if (auto found = find(hash)) {
    if (problem != nullptr) *problem = found->problem;
    return found;
  }
  const Stopwatch watch(encode_ms_);
  auto encoded = std::make_shared<EncodedMedia>();
  VideoEncoder encoder(model_, policy_);
  const bool fused = model_.config().compressor.has_value();  // then this only counts what can be read
  ImageSize size;
  FramePick shown{.indices = {}, .times = {}, .duration = pick.duration};
  const FramesRead read = read_frames(
      path, pick.indices,
      [&](std::size_t i, const Image& frame) {
        size = {frame.width, frame.height};
        shown.indices.push_back(pick.indices[i]);
        shown.times.push_back(pick.times[i]);
        if (!fused) encoder.add(frame);
        return fused || report(options, i, pick.indices.size());
      },
      options.limits);
  if (read.delivered == 0) fail(ErrorKind::kFormat, "{}", read.problem);
  encoded->problem = info.problem + (info.problem.empty() || read.problem.empty() ? "" : "\n") + read.problem;
  if (problem != nullptr) *problem = encoded->problem;
  if (fused) {
    encoded->plan = plan_video(size, read.delivered, policy_, model_.config());
  } else {
    encoder.finish(read.delivered, *encoded);
  }
  encoded->hash = hash;
  encoded->path = path;
  encoded->frames = std::move(shown);
  keep(encoded);
  return encoded;
}

void ImageStore::fuse(const EncodedMedia& media, PromptFusion& fusion, const VideoOptions& options) {
  const Stopwatch watch(encode_ms_);
  const at::NoGradGuard no_grad;
  if (!media.is_video()) return fusion.add(media.features);
  VideoEncoder encoder(model_, policy_, &fusion);
  const FramesRead read = read_frames(
      media.path, media.frames.indices,
      [&](std::size_t i, const Image& frame) {
        encoder.add(frame);
        return report(options, i, media.frames.indices.size());
      },
      options.limits);
  if (read.delivered != static_cast<std::int64_t>(media.frames.indices.size()))
    fail(ErrorKind::kInput, "{} has changed while it was read: {}", media.path.string(), read.problem);
  encoder.finish();
}

std::vector<std::shared_ptr<const EncodedMedia>> split_frames(const EncodedMedia& video) {
  std::vector<std::shared_ptr<const EncodedMedia>> frames;
  for (std::int64_t i = 0; i < video.plan.layout.views; ++i) {
    EncodedMedia frame = video;
    frame.plan.layout.video = false;
    frame.plan.layout.views = frame.plan.num_tiles = 1;
    frame.plan.layout.token_count /= video.plan.layout.views;
    frame.plan.token_count = frame.plan.layout.token_count;
    frame.rows = video.rows.narrow(0, i * frame.plan.token_count, frame.plan.token_count);
    frame.hash = hash_text(fmt::format("{} frame {}", video.hash, i));
    frame.frames = {};
    frames.push_back(std::make_shared<EncodedMedia>(std::move(frame)));
  }
  return frames;
}

double ImageStore::take_encode_ms() { return std::exchange(encode_ms_, 0.0); }

}  // namespace llava
