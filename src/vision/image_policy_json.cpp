#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "vision/media_plan.h"

// preprocessor_config.json -> ImagePolicy. A key that is missing takes the default of its class in
// transformers 4.57; keys that do not change the maths are passed over; a class whose maths we do not have
// is refused by name.
namespace llava {

namespace {

constexpr std::string_view kWhat = "preprocessor_config.json";
constexpr std::int64_t kMaxSide = 8192;
constexpr std::size_t kMaxPinpoints = 1024;

constexpr std::array<double, 3> kClipMean = {0.48145466, 0.4578275, 0.40821073};
constexpr std::array<double, 3> kClipStd = {0.26862954, 0.26130258, 0.27577711};
constexpr std::array<double, 3> kCentred = {0.5, 0.5, 0.5};

ImagePolicy clip_defaults() {
  ImagePolicy policy;
  policy.resize_height = policy.resize_width = policy.crop_height = policy.crop_width = 224;
  policy.mean = kClipMean;
  policy.std = kClipStd;
  return policy;
}

ImagePolicy squash_defaults(ResampleFilter filter) {
  ImagePolicy policy = clip_defaults();
  policy.resize = ResizeMode::kSquash;
  policy.center_crop = false;
  policy.resample = filter;
  policy.mean = policy.std = kCentred;
  return policy;
}

struct Processor {
  ImagePolicy policy;
  bool square_size = false;  ///< an integer `size` means height and width, not the shortest edge
  bool crops = true;         ///< knows do_center_crop
  bool tiles = false;  ///< AnyRes with image_grid_pinpoints
  bool pads = false;  ///< do_pad is expand2square (elsewhere it pads a batch, which changes no image)
};

/// The class's defaults, by its name without "Fast" (the same maths within one grey level; ours is the slow
/// one's).
Processor find_processor(const std::string& type) {
  std::string name = type;
  for (const std::string_view suffix : {"Fast", "ImageProcessor", "FeatureExtractor"})
    if (name.size() > suffix.size() && name.ends_with(suffix)) name.resize(name.size() - suffix.size());
  if (name == "CLIP" || name == "Bit") return {.policy = clip_defaults()};
  if (name == "Llava") return {.policy = clip_defaults(), .pads = true};
  if (name == "LlavaNext" || name == "LlavaNextVideo") {
    ImagePolicy policy = clip_defaults();
    policy.resize_height = policy.resize_width = policy.crop_height = policy.crop_width = 336;
    policy.grid_pinpoints = {{672, 336}, {336, 672}, {672, 672}, {336, 1008}, {1008, 336}};
    return {.policy = policy, .tiles = true};
  }
  if (name == "LlavaOnevision") {
    ImagePolicy policy = squash_defaults(ResampleFilter::kBicubic);
    policy.resize_height = policy.resize_width = 384;
    policy.mean = kClipMean;
    policy.std = kClipStd;
    for (std::int64_t height = 384; height <= 6 * 384; height += 384)
      for (std::int64_t width = 384; width <= 6 * 384; width += 384)
        policy.grid_pinpoints.push_back({width, height});
    return {.policy = policy, .square_size = true, .crops = false, .tiles = true};
  }
  if (name == "Siglip")
    return {.policy = squash_defaults(ResampleFilter::kBicubic), .square_size = true, .crops = false};
  if (name == "ViT")
    return {.policy = squash_defaults(ResampleFilter::kBilinear), .square_size = true, .crops = false};
  fail(ErrorKind::kUnsupported,
       "{}: image processor \"{}\" is not supported; known are CLIP-, Siglip-, Bit- (DINOv2), ViT-, "
       "Llava-, LlavaNext- and LlavaOnevisionImageProcessor",
       kWhat, type.substr(0, 80));
}

/// The class's name: image_processor_type; before transformers 4.26 feature_extractor_type; else the
/// processor it is part of.
std::string processor_name(const Json& json) {
  for (const char* key : {"image_processor_type", "feature_extractor_type"})
    if (const auto name = json_get_or<std::string>(json, key, "", kWhat); !name.empty()) return name;
  const auto whole = json_get_or<std::string>(json, "processor_class", "", kWhat);
  if (whole == "CLIPProcessor" || whole == "LlavaProcessor") return "CLIPImageProcessor";
  if (whole == "SiglipProcessor") return "SiglipImageProcessor";
  fail(ErrorKind::kFormat, "{}: no \"image_processor_type\"", kWhat);
}

std::int64_t read_side(const Json& value, std::string_view key, std::string_view what = kWhat) {
  if (!value.is_number_integer()) fail(ErrorKind::kFormat, "{}: \"{}\" must hold integers", what, key);
  const auto side = value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{kMaxSide}
                        ? kMaxSide + 1
                        : value.get<std::int64_t>();
  if (side < 1 || side > kMaxSide)
    fail(ErrorKind::kFormat, "{}: \"{}\" is {}; a side may be 1 to {}", what, key, value.dump(), kMaxSide);
  return side;
}

struct SizeValue {
  std::int64_t height = 0, width = 0;
  bool shortest_edge = false;
};

/// `size` in any form HF takes: N, [height, width], {"shortest_edge"}, {"height", "width"}.
SizeValue read_size(const Json& value, std::string_view key, bool square) {
  if (value.is_array() && value.size() == 2)
    return {read_side(value[0], key), read_side(value[1], key), false};
  if (value.is_object() && value.contains("height") && value.contains("width"))
    return {read_side(value["height"], key), read_side(value["width"], key), false};
  const bool edge = value.is_object() && value.contains("shortest_edge");
  if (!edge && !value.is_number())
    fail(ErrorKind::kUnsupported,
         "{}: \"{}\" is {}; expected a number, [height, width], \"shortest_edge\" or "
         "\"height\" and \"width\"",
         kWhat, key, value.dump().substr(0, 80));
  const std::int64_t side = read_side(edge ? value["shortest_edge"] : value, key);
  return {side, side, edge || !square};
}

double read_number(const Json& value, std::string_view key) {
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    fail(ErrorKind::kFormat, "{}: \"{}\" must hold finite numbers", kWhat, key);
  return value.get<double>();
}

/// One number for all channels, or three.
void read_channels(const Json& json, const char* key, std::array<double, 3>& channels) {
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return;
  if (it->is_array() && it->size() != 3)
    fail(ErrorKind::kFormat, "{}: \"{}\" must hold 3 numbers", kWhat, key);
  for (std::size_t c = 0; c < 3; ++c) channels[c] = read_number(it->is_array() ? (*it)[c] : *it, key);
}

void read_resize(const Json& json, const Processor& processor, ImagePolicy& policy) {
  const auto it = json.find("size");
  if (it != json.end() && !it->is_null()) {
    const SizeValue size = read_size(*it, "size", processor.square_size);
    policy.resize = size.shortest_edge ? ResizeMode::kShortestEdge : ResizeMode::kSquash;
    policy.resize_height = size.height;
    policy.resize_width = size.width;
  }
  if (!json_get_or(json, "do_resize", true, kWhat)) policy.resize = ResizeMode::kNone;
  const auto filter =
      json_get_or<std::int64_t>(json, "resample", static_cast<std::int64_t>(policy.resample), kWhat);
  if (filter < 0 || filter > 5)
    fail(ErrorKind::kFormat, "{}: \"resample\" is {}; Pillow's filters are 0 to 5", kWhat, filter);
  policy.resample = static_cast<ResampleFilter>(filter);
}

void read_crop(const Json& json, const Processor& processor, ImagePolicy& policy) {
  if (!processor.crops) return;
  policy.center_crop = json_get_or(json, "do_center_crop", true, kWhat);
  const auto it = json.find("crop_size");
  if (it == json.end() || it->is_null()) return;
  const SizeValue crop = read_size(*it, "crop_size", true);
  if (crop.shortest_edge) fail(ErrorKind::kFormat, "{}: \"crop_size\" cannot be a shortest edge", kWhat);
  policy.crop_height = crop.height;
  policy.crop_width = crop.width;
}

/// HF's list of [height, width].
void read_pinpoints(const Json& json, ImagePolicy& policy) {
  policy.aspect_ratio = AspectRatio::kAnyRes;
  const auto it = json.find("image_grid_pinpoints");
  if (it == json.end() || it->is_null()) return;
  policy.grid_pinpoints = grid_pinpoints_from_json(*it, PinpointOrder::kHeightWidth, kWhat);
}

}  // namespace

std::vector<GridPinpoint> grid_pinpoints_from_json(const Json& list, PinpointOrder order,
                                                   std::string_view what) {
  if (!list.is_array() || list.empty() || list.size() > kMaxPinpoints)
    fail(ErrorKind::kFormat, "{}: image_grid_pinpoints must be a list of 1 to {} pairs", what,
         kMaxPinpoints);
  std::vector<GridPinpoint> pinpoints;
  for (const Json& pair : list) {
    if (!pair.is_array() || pair.size() != 2)
      fail(ErrorKind::kFormat, "{}: image_grid_pinpoints: {} is no pair of sides", what,
           pair.dump().substr(0, 40));
    const std::int64_t first = read_side(pair[0], "image_grid_pinpoints", what);
    const std::int64_t second = read_side(pair[1], "image_grid_pinpoints", what);
    pinpoints.push_back(order == PinpointOrder::kHeightWidth ? GridPinpoint{second, first}
                                                             : GridPinpoint{first, second});
  }
  return pinpoints;
}

ImagePolicy image_policy_from_json(const Json& preprocessor_config) {
  const Json& json = preprocessor_config;
  if (!json.is_object()) fail(ErrorKind::kFormat, "{}: expected a JSON object", kWhat);
  const Processor processor = find_processor(processor_name(json));
  ImagePolicy policy = processor.policy;
  if (processor.pads && json_get_or(json, "do_pad", false, kWhat)) policy.aspect_ratio = AspectRatio::kPad;
  if (processor.tiles) read_pinpoints(json, policy);
  read_resize(json, processor, policy);
  read_crop(json, processor, policy);
  policy.do_rescale = json_get_or(json, "do_rescale", true, kWhat);
  if (const auto it = json.find("rescale_factor"); it != json.end() && !it->is_null())
    policy.rescale_factor = read_number(*it, "rescale_factor");
  policy.do_normalize = json_get_or(json, "do_normalize", true, kWhat);
  read_channels(json, "image_mean", policy.mean);
  read_channels(json, "image_std", policy.std);
  for (const double deviation : policy.std)
    if (policy.do_normalize && static_cast<float>(deviation) == 0.0F)
      fail(ErrorKind::kFormat, "{}: \"image_std\" holds a zero", kWhat);
  return policy;
}

}  // namespace llava
