#include <algorithm>
#include <charconv>
#include <regex>
#include <string>

#include "base/error.h"
#include "checkpoint/parts.h"
#include "vision/media_plan.h"

// What a config.json says about tiles, newlines and frames: the original code's keys and llava-hf's.
namespace llava {

namespace {

[[noreturn]] void refuse(const Json& config, const char* key, std::string_view what) {
  fail(ErrorKind::kUnsupported, "{}: {} = {} is not supported", what, key,
       config.at(key).dump().substr(0, 80));
}

std::int64_t leading_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : 0;
}

/// N of "anyres_max_N"; 0 for "anyres"; Error for anything else.
std::int64_t max_tiles_of(const Json& config, const char* key, const std::string& ratio,
                          std::string_view what) {
  constexpr std::string_view kMax = "anyres_max_";
  if (ratio == "anyres") return 0;
  const std::int64_t n = ratio.starts_with(kMax) ? leading_number(std::string_view(ratio).substr(kMax.size())) : 0;
  if (n < 1 || n > 4096) refuse(config, key, what);
  return n;
}

/// "(1x1),...,(6x6)": every pair of multiples of the view's side from the first to the last, the width outside.
std::vector<GridPinpoint> pinpoints_of_range(const std::string& text, std::int64_t side,
                                             std::string_view what) {
  static const std::regex kPair(R"(\((\d+)x(\d+)\))");
  const std::string start = text.substr(0, 1000);  // std::regex recurses by character
  std::vector<std::int64_t> numbers;
  for (auto it = std::sregex_iterator(start.begin(), start.end(), kPair); it != std::sregex_iterator(); ++it)
    for (const int group : {1, 2}) numbers.push_back(leading_number((*it)[group].str()));
  const auto in_range = [](std::int64_t n) { return n >= 1 && n <= 64; };
  if (numbers.empty() || !std::all_of(numbers.begin(), numbers.end(), in_range))
    fail(ErrorKind::kFormat, "{}: image_grid_pinpoints \"{}\" is no range like \"(1x1),...,(6x6)\"", what,
         text.substr(0, 80));
  std::vector<GridPinpoint> pinpoints;
  for (std::int64_t i = numbers[0]; i <= numbers[numbers.size() - 2]; ++i)
    for (std::int64_t j = numbers[1]; j <= numbers.back(); ++j)
      pinpoints.push_back({i * side, j * side});
  if (pinpoints.empty()) fail(ErrorKind::kFormat, "{}: image_grid_pinpoints \"{}\" is empty", what, text.substr(0, 80));
  return pinpoints;
}

void read_mm_pinpoints(const Json& config, std::int64_t side, ImagePolicy& policy, std::string_view what) {
  if (!config.contains("image_grid_pinpoints") || config.at("image_grid_pinpoints").is_null())
    fail(ErrorKind::kFormat, "{}: image_aspect_ratio anyres without image_grid_pinpoints", what);
  const Json& value = config.at("image_grid_pinpoints");
  if (!value.is_string()) {
    policy.grid_pinpoints = grid_pinpoints_from_json(value, PinpointOrder::kWidthHeight, what);
    return;
  }
  const auto text = value.get<std::string>();
  if (text.find('x') != std::string::npos) {
    policy.grid_pinpoints = pinpoints_of_range(text, side, what);
  } else {  // older configs hold the list as text
    policy.grid_pinpoints = grid_pinpoints_from_json(parse_json(text, std::string(what)),
                                                     PinpointOrder::kWidthHeight, what);
  }
}

void read_mm_merge(const Json& config, MediaConfig& media, std::string_view what) {
  auto merge = json_get_or<std::string>(config, "mm_patch_merge_type", "flat", what);
  const auto take = [&](std::string_view part) {
    const std::size_t at = merge.find(part);
    if (at != std::string::npos) merge.erase(at, part.size());
    return at != std::string::npos;
  };
  media.max_pool = take("_maxpool2x2");
  media.nobase = take("_nobase");
  if (merge == "flat") {
    media.merge = TileMerge::kFlat;
  } else if (merge == "spatial") {
    media.merge = TileMerge::kSpatial;
  } else if (merge == "spatial_unpad") {
    media.merge = TileMerge::kSpatialUnpad;
    media.image_newline = true;
  } else {
    refuse(config, "mm_patch_merge_type", what);
  }
}

PoolMode pool_mode(const Json& config, const char* key, const char* fallback, std::string_view what) {
  const auto name = json_get_or<std::string>(config, key, fallback, what);
  for (const PoolMode mode : {PoolMode::kAverage, PoolMode::kMax, PoolMode::kBilinear})
    if (name == to_string(mode)) return mode;
  refuse(config, key, what);
}

void read_mm_video(const Json& config, MediaConfig& media, std::string_view what) {
  media.video_pool = pool_mode(config, "mm_spatial_pool_mode", "bilinear", what);
  media.video_pool_stride = 2;  // the original code calls the pool with its default, whatever the config says
  const auto position = json_get_or<std::string>(config, "mm_newline_position", "one_token", what);
  media.time_instruction = json_get_or<bool>(config, "add_time_instruction", false, what);
  if (json_get_or<bool>(config, "add_faster_video", false, what)) {
    media.faster_token_stride = json_get_or<std::int64_t>(config, "faster_token_stride", 10, what);
    if (media.faster_token_stride < 1) refuse(config, "faster_token_stride", what);
  }
  if (!media.image_newline) return;
  for (const Newline newline : {Newline::kNone, Newline::kGrid, Newline::kFrame, Newline::kEnd})
    if (position == to_string(newline)) {
      media.video_newline = newline;
      if (newline == Newline::kGrid) media.video_max_frames = 64;  // LLaVA-Video
      return;
    }
  refuse(config, "mm_newline_position", what);
}

}  // namespace

void read_mm_media(const Json& config, ModelConfig& model, ImagePolicy& policy, std::string_view what) {
  for (const char* key : {"s2", "use_s2"})
    if (json_get_or<bool>(config, key, false, what)) refuse(config, key, what);
  if (config.contains("mm_resampler_type") && !config.at("mm_resampler_type").is_null())
    refuse(config, "mm_resampler_type", what);
  model.media.image_start_end = json_get_or<bool>(config, "mm_use_im_start_end", false, what);
  read_mm_merge(config, model.media, what);
  const auto ratio = json_get_or<std::string>(config, "image_aspect_ratio", "square", what);
  if (ratio == "pad") {
    policy.aspect_ratio = AspectRatio::kPad;
  } else if (ratio.starts_with("anyres")) {
    policy.aspect_ratio = AspectRatio::kAnyRes;
    model.media.max_tiles = max_tiles_of(config, "image_aspect_ratio", ratio, what);
    model.media.tile_single_images_only = model.media.max_tiles > 0;
    read_mm_pinpoints(config, model.tower->input_size, policy, what);
  } else if (ratio != "square") {
    refuse(config, "image_aspect_ratio", what);
  }
  // a class token beside the patches leaves no grid to pool: every frame stands as it is
  if (!json_get_or<bool>(config, "mm_projector_class_token", false, what))
    read_mm_video(config, model.media, what);
}

void read_mm_compressor(const Json& config, CheckpointInfo& info, std::string_view what) {
  if (!config.contains("compressor_size") && !has_tensor_containing(info, "compressor.query")) return;
  CompressorConfig compressor;
  compressor.size = json_get_or<std::int64_t>(config, "compressor_size", 2, what);
  compressor.prefusion_layer_num = json_get_or<std::int64_t>(config, "prefusion_layer_num", 4, what);
  compressor.resolution_ratio = json_get_or<std::int64_t>(config, "resolution_ratio", 1, what);
  info.model.compressor = compressor;
  MediaConfig& media = info.model.media;
  if (info.image_policy->aspect_ratio == AspectRatio::kAnyRes || media.image_newline)
    fail(ErrorKind::kUnsupported, "{}: compressor_size together with tiles is not supported", what);
  media.video_pool = PoolMode::kNone;
  media.video_max_frames = 0;  // all, one a second
}

void read_hf_media(const Json& config, const std::string& model_type, ModelConfig& model,
                   ImagePolicy& policy, std::string_view what) {
  MediaConfig& media = model.media;
  media.video_pool = PoolMode::kAverage;  // an image model shown a film (specification 1.5.7)
  if (model_type == "llava" || model_type == "vipllava") return;
  media.merge = TileMerge::kSpatialUnpad;
  media.image_newline = true;
  if (policy.aspect_ratio != AspectRatio::kAnyRes)
    fail(ErrorKind::kFormat, "{}: a {} checkpoint whose image processor does not tile", what, model_type);
  if (config.contains("image_grid_pinpoints") && !config.at("image_grid_pinpoints").is_null() &&
      policy.grid_pinpoints !=
          grid_pinpoints_from_json(config.at("image_grid_pinpoints"), PinpointOrder::kHeightWidth, what))
    fail(ErrorKind::kFormat, "{}: image_grid_pinpoints differ from those of the image processor", what);
  if (model_type == "llava_onevision") {
    const auto ratio = json_get_or<std::string>(config, "vision_aspect_ratio", "anyres_max_9", what);
    media.max_tiles = max_tiles_of(config, "vision_aspect_ratio", ratio, what);
    media.tile_single_images_only = true;
    media.video_pool = PoolMode::kBilinear;
    media.video_newline = Newline::kEnd;
  } else if (model_type == "llava_next_video") {
    media.video_pool = pool_mode(config, "spatial_pool_mode", "average", what);
    media.video_pool_stride = json_get_or<std::int64_t>(config, "spatial_pool_stride", 2, what);
    media.video_pool_first = true;
    if (media.video_pool_stride < 1 || media.video_pool_stride > 64)
      refuse(config, "spatial_pool_stride", what);
  }
  const bool video = model_type != "llava_next";
  if (!video) return;
  const std::int64_t fallback = model_type == "llava_onevision" ? 151647 : 32000;
  media.video_token_id = json_get_or<std::int64_t>(config, "video_token_id", -1, what);
  if (media.video_token_id < 0)
    media.video_token_id = json_get_or<std::int64_t>(config, "video_token_index", fallback, what);
}

}  // namespace llava
