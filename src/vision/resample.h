#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "config/image_policy.h"
#include "vision/image.h"

/// The resize behind resize_image, with two additions that change no pixel: the source may stand in a frame
/// of one colour that is never built, and only a window of the result need be computed. Both keep extreme
/// aspect ratios cheap (a 1 x 20000 image padded to a square, or scaled to a shortest edge of 336).
namespace llava {

struct ResampleAxis {
  std::int64_t source = 0;             ///< pixels that exist
  std::int64_t before = 0, after = 0;  ///< pixels of the frame's colour on either side
  std::int64_t target = 0;             ///< size of the whole result
  std::int64_t begin = 0, length = 0;  ///< the wanted part of it
  std::int64_t framed() const { return before + source + after; }
};

struct ResampleJob {
  ResampleAxis x, y;
  std::array<std::uint8_t, 3> frame_colour = {0, 0, 0};
  ResampleFilter filter = ResampleFilter::kBicubic;
};

/// The wanted window, job.y.length rows of job.x.length pixels. The job's sizes must be consistent
/// (LLAVA_ASSERT).
Image resample(const Image& image, const ResampleJob& job);

/// The nearest pixel at floor(i * in / out) in float32, as torch's interpolate(mode="nearest") picks it (Pillow's
/// nearest looks at pixel centres).
Image squash_nearest(const Image& image, const ImageSize& size);

/// Fixed-point weights of one axis. Output pixel i of the window is
/// (half + frame_weight[i] * frame + sum over k < count[i] of weight(i, k) * source[first[i] + k]) >> 22,
/// clipped to 0..255.
struct ResampleTaps {
  std::int64_t stride = 0;  ///< weights kept for an output pixel
  std::vector<std::int64_t> first;
  std::vector<std::int32_t> count, frame_weight, weights;
  const std::int32_t* weights_of(std::size_t i) const {
    return weights.data() + i * static_cast<std::size_t>(stride);
  }
};

inline constexpr int kResampleBits = 22;

ResampleTaps make_resample_taps(const ResampleAxis& axis, ResampleFilter filter);

/// out[l] = clip8((half + frame_weight * frame[l] + sum_k weights[k] * rows[k * stride + l]) >> 22) for l <
/// lanes.
void weigh_rows(const std::uint8_t* rows, std::size_t stride, const std::int32_t* weights,
                std::int32_t count, const std::uint8_t* frame, std::int32_t frame_weight, std::uint8_t* out,
                std::size_t lanes);

}  // namespace llava
