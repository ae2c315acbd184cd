#include "train/feature_cache.h"

#include <sys/stat.h>
#include <torch/torch.h>

#include <deque>
#include <fstream>
#include <future>
#include <unordered_set>

#include "base/error.h"
#include "base/file_lock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/progress.h"
#include "tensor/convert.h"

namespace llava {

namespace fs = std::filesystem;

namespace {

/// Images in one tower pass. Every pass has exactly this many rows (the last one is padded), so that an
/// image's features do not depend on how often the work was interrupted.
constexpr std::size_t kTowerBatch = 8;

/// What an image is known by; empty if it cannot be read.
std::string image_key(const MediaRef& image) {
  struct stat facts {};
  if (::stat(image.path.c_str(), &facts) != 0) return "";
  const std::string part =
      image.name.empty() ? "" : fmt::format("#{}@{}+{}", image.name, image.offset, image.size);
  return fmt::format("{}{}|{}|{}.{}", fs::absolute(image.path).lexically_normal().string(), part,
                     facts.st_size, facts.st_mtim.tv_sec, facts.st_mtim.tv_nsec);
}

std::string policy_text(const ImagePolicy& p) {
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", static_cast<int>(p.aspect_ratio),
                     static_cast<int>(p.resize), p.resize_height, p.resize_width, p.center_crop,
                     p.crop_height, p.crop_width, static_cast<int>(p.resample), p.do_rescale,
                     p.rescale_factor, p.do_normalize, fmt::join(p.mean, ","), fmt::join(p.std, ","),
                     p.apply_exif_orientation, 1);
}

std::uint64_t tower_hash(LlavaModel& model) {
  std::uint64_t hash = 0;
  for (const NamedParameter& p : model.parameters()) {
    if (p.name.rfind("vision_tower.", 0) != 0) continue;
    const at::Tensor t = p.tensor.detach().cpu().contiguous();
    hash = hash_text(p.name, hash);
    hash = hash_bytes({static_cast<const std::byte*>(t.data_ptr()), t.nbytes()}, hash);
  }
  const TowerConfig& t = *model.config().tower;
  return hash_text(fmt::format("{} {} {}", fmt::join(t.select_layers, ","),
                               static_cast<int>(t.select_feature), t.apply_final_norm),
                   hash);
}

}  // namespace

/// An image on its way into the cache; no media if it cannot be read.
struct DecodedImage {
  std::string key;
  std::optional<PreparedMedia> media;
};

namespace {

DecodedImage decode(const MediaRef& path, const ImagePolicy& policy, const ModelConfig& model) {
  DecodedImage decoded{image_key(path), std::nullopt};
  if (auto media = try_outcome([&] { return prepare_image(path, policy, model); }))
    decoded.media = std::move(media).value();
  return decoded;
}

}  // namespace

/// The two files, open for appending. The data is cut to the slots that the index knows.
struct FeatureFiles {
  FeatureFiles(const fs::path& folder, std::int64_t known_bytes) {
    std::ofstream(folder / "features.bin", std::ios::binary | std::ios::app);
    fs::resize_file(folder / "features.bin", static_cast<std::uintmax_t>(known_bytes));
    data.open(folder / "features.bin", std::ios::binary | std::ios::app);
    index.open(folder / "index.jsonl", std::ios::app);
    index << "\n";  // ends a line that an interruption tore
  }
  std::ofstream data, index;
};

FeatureCache::FeatureCache(const fs::path& output, LlavaModel& model, const ImagePolicy& policy,
                           c10::ScalarType dtype)
    : policy_(policy), dtype_(dtype) {
  const TowerConfig& tower = *model.config().tower;
  rows_ = tower.num_features();
  width_ = tower.hidden_size * static_cast<std::int64_t>(tower.select_layers.size());
  const std::uint64_t key = hash_text(policy_text(policy) + dtype_name(dtype_), tower_hash(model));
  folder_ = output / fmt::format("features-{:016x}", key);
  fs::create_directories(folder_);
  read_index();
}

std::int64_t FeatureCache::slot_bytes() const {
  return rows_ * width_ * static_cast<std::int64_t>(c10::elementSize(dtype_));
}

void FeatureCache::read_index() {
  const fs::path data = folder_ / "features.bin";
  const std::int64_t stored =
      fs::exists(data) ? static_cast<std::int64_t>(fs::file_size(data)) / slot_bytes() : 0;
  std::ifstream index(folder_ / "index.jsonl");
  for (std::string line; std::getline(index, line);) {
    const Json json = Json::parse(line, nullptr, false);  // a torn last line is an image to compute again
    if (!json.is_array() || json.size() != 4 || !json[0].is_string()) continue;
    if (!json[1].is_number_integer() || !json[2].is_number_integer() || !json[3].is_number_integer())
      continue;
    const auto slot = json[3].get<std::int64_t>();
    if (slot < 0 || slot >= stored) continue;
    images_[json[0].get<std::string>()] = {slot,
                                           {json[1].get<std::int64_t>(), json[2].get<std::int64_t>()}};
    num_slots_ = std::max(num_slots_, slot + 1);
  }
}

std::vector<MediaRef> FeatureCache::missing_of(const std::vector<MediaRef>& images) const {
  std::vector<MediaRef> missing;
  std::unordered_set<std::string> queued;
  for (const MediaRef& image : images) {
    const std::string key = image_key(image);
    if (!key.empty() && !images_.contains(key) && queued.insert(key).second) missing.push_back(image);
  }
  return missing;
}

bool FeatureCache::fill(const std::vector<MediaRef>& images, LlavaModel& model,
                        const FillOptions& options) {
  const FileLock lock(folder_);
  read_index();  // another run may have added to it since
  const std::vector<MediaRef> missing = missing_of(images);
  const std::int64_t wanted = (num_slots_ + static_cast<std::int64_t>(missing.size())) * slot_bytes();
  if (wanted > options.max_bytes) {
    log_warning("train",
                "vision features would take {}, more than feature_cache_bytes; computing them every step",
                format_bytes(static_cast<double>(wanted)));
    return false;
  }
  FeatureFiles files(folder_, num_slots_ * slot_bytes());
  Progress progress("vision features", static_cast<std::int64_t>(missing.size()));
  std::deque<std::future<DecodedImage>> ahead;
  std::vector<DecodedImage> batch;
  std::size_t next = 0;
  for (std::size_t done = 0; done < missing.size(); ++done) {
    for (; next < missing.size() && ahead.size() < static_cast<std::size_t>(options.threads) + 1; ++next)
      ahead.push_back(std::async(std::launch::async, decode, missing[next], std::cref(policy_),
                                 std::cref(model.config())));
    DecodedImage image = ahead.front().get();
    ahead.pop_front();
    if (image.media && image.media->plan.num_tiles != 1) return false;
    if (image.media) batch.push_back(std::move(image));
    if (batch.size() == kTowerBatch) encode(batch, model, files);
    progress.update(static_cast<std::int64_t>(done + 1));
    if (options.stop != nullptr && *options.stop)
      fail(ErrorKind::kStopped, "stopped while computing vision features; run again");
  }
  encode(batch, model, files);
  files.data.close();
  if (num_slots_ > 0) map_ = std::make_unique<MappedFile>(folder_ / "features.bin");
  return true;
}

void FeatureCache::encode(std::vector<DecodedImage>& batch, LlavaModel& model, FeatureFiles& files) {
  if (batch.empty()) return;
  const at::NoGradGuard no_grad;
  const MediaPlan& plan = batch.front().media->plan;
  at::Tensor pixels =
      at::zeros({static_cast<std::int64_t>(kTowerBatch), 3, plan.tile_height, plan.tile_width}, at::kFloat);
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const std::vector<float>& own = batch[i].media->pixels;
    std::copy(own.begin(), own.end(), pixels.data_ptr<float>() + i * own.size());
  }
  const at::Tensor features = model.encode_vision(pixels).to(dtype_).cpu().contiguous();
  LLAVA_ASSERT(features.size(1) == rows_ && features.size(2) == width_,
               "tower features have another shape than planned");
  const auto count = static_cast<std::int64_t>(batch.size());
  files.data.write(static_cast<const char*>(features.data_ptr()), count * slot_bytes());
  files.data.flush();
  for (const DecodedImage& image : batch) {
    const ImageSize size = image.media->plan.original;
    files.index << Json::array({image.key, size.width, size.height, num_slots_}).dump() << "\n";
    images_[image.key] = {num_slots_++, size};
  }
  files.index.flush();
  if (!files.data || !files.index)
    fail(ErrorKind::kResource, "{}: cannot write vision features: is the disk full?", folder_.string());
  batch.clear();
}

std::optional<CachedImage> FeatureCache::find(const MediaRef& image) const {
  const auto it = images_.find(image_key(image));
  if (it == images_.end()) return std::nullopt;
  return it->second;
}

at::Tensor FeatureCache::features(std::int64_t slot) const {
  LLAVA_ASSERT(map_ != nullptr && slot >= 0 && slot < num_slots_, "no such feature slot");
  // The map is read-only; collate copies it and nothing writes to it.
  auto* begin = const_cast<std::byte*>(map_->bytes().data()) + slot * slot_bytes();
  return at::from_blob(begin, {1, rows_, width_}, at::TensorOptions().dtype(dtype_));
}

}  // namespace llava
