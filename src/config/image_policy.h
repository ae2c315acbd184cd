#pragma once
#include <array>
#include <cstdint>
#include <vector>

/// How bytes become pixels. Everything preprocessor_config.json and image_aspect_ratio can say, as data.
namespace llava {

enum class ResampleFilter {
  kNearest = 0,
  kLanczos = 1,
  kBilinear = 2,
  kBicubic = 3,
  kBox = 4,
  kHamming = 5
};  // PIL codes

enum class ResizeMode {
  kNone,          ///< do_resize false
  kShortestEdge,  ///< CLIP: size.shortest_edge, long side truncated
  kSquash,        ///< SigLIP, DINOv2: size.{height,width}, aspect ratio lost
};

enum class AspectRatio {
  kSquare /* the processor as it is */,
  kPad /* expand2square with the mean colour first */,
  kAnyRes /* an overview and tiles of the best of grid_pinpoints */
};

/// A size that tiles may cover together.
struct GridPinpoint {
  std::int64_t width = 0, height = 0;
  bool operator==(const GridPinpoint&) const = default;
};

struct ImageLimits {
  std::int64_t max_bytes = 256LL << 20;  ///< of one encoded file
  std::int64_t max_pixels = 178956970;   ///< Pillow's decompression-bomb threshold; refused above it
  std::int64_t max_side = 65500;
};

struct ImagePolicy {
  AspectRatio aspect_ratio = AspectRatio::kSquare;
  /// image_grid_pinpoints, in the checkpoint's order, which decides ties. Files of the original code list
  /// (width, height), llava-hf's (height, width): these are sorted out where they are read.
  std::vector<GridPinpoint> grid_pinpoints;
  ResizeMode resize = ResizeMode::kShortestEdge;
  std::int64_t resize_height = 336, resize_width = 336;  ///< kShortestEdge uses resize_height
  bool center_crop = true;
  std::int64_t crop_height = 336, crop_width = 336;
  ResampleFilter resample = ResampleFilter::kBicubic;
  bool do_rescale = true;
  double rescale_factor = 1.0 / 255.0;
  bool do_normalize = true;
  std::array<double, 3> mean = {0.48145466, 0.4578275, 0.40821073};
  std::array<double, 3> std = {0.26862954, 0.26130258, 0.27577711};
  bool apply_exif_orientation =
      false;  ///< false = HF and LLaVA (upstream ignores it); chat turns photos upright
  ImageLimits limits;
  bool operator==(const ImagePolicy& o) const {
    return aspect_ratio == o.aspect_ratio && grid_pinpoints == o.grid_pinpoints && resize == o.resize && resize_height == o.resize_height &&
           resize_width == o.resize_width && center_crop == o.center_crop && crop_height == o.crop_height &&
           crop_width == o.crop_width && resample == o.resample && do_rescale == o.do_rescale &&
           rescale_factor == o.rescale_factor && do_normalize == o.do_normalize && mean == o.mean &&
           std == o.std;
  }
};

}  // namespace llava
