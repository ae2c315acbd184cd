#include <algorithm>
#include <cmath>
#include <numbers>

#include "vision/resample.h"

// Weights of Pillow's filters (its documentation and the classic definitions), evaluated in double in
// Pillow's order and rounded half away from zero to 22 fractional bits. A filter is stretched by the scale
// when shrinking (antialias).
namespace llava {

namespace {

using Filter = double (*)(double);
struct FilterKind {
  Filter weight;
  double support;
};

double sinc(double x) {
  if (x == 0.0) return 1.0;
  const double a = x * std::numbers::pi;
  return std::sin(a) / a;
}

double box_weight(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double bilinear_weight(double x) { return std::max(0.0, 1.0 - std::fabs(x)); }

/// Pillow's constants are floats, and it shows.
double hamming_weight(double x) {
  x = std::fabs(x);
  if (x >= 1.0) return 0.0;
  return x == 0.0 ? 1.0 : sinc(x) * (0.54F + 0.46F * std::cos(x * std::numbers::pi));
}

/// Keys' cubic with a = -0.5 (OpenCV and torch use -0.75: visibly different).
double bicubic_weight(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

double lanczos_weight(double x) { return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }

FilterKind filter_kind(ResampleFilter filter) {
  switch (filter) {
    case ResampleFilter::kBox:
      return {box_weight, 0.5};
    case ResampleFilter::kBilinear:
      return {bilinear_weight, 1.0};
    case ResampleFilter::kHamming:
      return {hamming_weight, 1.0};
    case ResampleFilter::kBicubic:
      return {bicubic_weight, 2.0};
    case ResampleFilter::kLanczos:
      return {lanczos_weight, 3.0};
    case ResampleFilter::kNearest:
      break;
  }
  fail(ErrorKind::kInternal, "resample filter {} has no kernel", static_cast<int>(filter));
}

std::int32_t to_fixed(double weight) {
  const double scaled = weight * (1 << kResampleBits);
  return static_cast<std::int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

/// Stores the weights of framed pixels [first, first + weights.size()) as taps of output i: those on
/// existing pixels one by one, those on the frame as their sum.
void store_taps(ResampleTaps& taps, std::size_t i, const ResampleAxis& axis, std::int64_t first,
                const std::vector<std::int32_t>& weights) {
  std::int32_t* out = taps.weights.data() + i * static_cast<std::size_t>(taps.stride);
  taps.first[i] = std::clamp<std::int64_t>(first - axis.before, 0, axis.source);
  for (std::size_t k = 0; k < weights.size(); ++k) {
    const std::int64_t position = first + static_cast<std::int64_t>(k) - axis.before;
    if (position >= 0 && position < axis.source)
      out[taps.count[i]++] = weights[k];
    else
      taps.frame_weight[i] += weights[k];
  }
}

ResampleTaps empty_taps(const ResampleAxis& axis, std::int64_t stride) {
  const auto n = static_cast<std::size_t>(axis.length);
  ResampleTaps taps;
  taps.stride = stride;
  taps.first.assign(n, 0);
  taps.count.assign(n, 0);
  taps.frame_weight.assign(n, 0);
  taps.weights.assign(n * static_cast<std::size_t>(stride), 0);
  return taps;
}

/// One source pixel each. The position is accumulated, not multiplied, as Pillow does: the rounding is part
/// of the result.
ResampleTaps nearest_taps(const ResampleAxis& axis) {
  ResampleTaps taps = empty_taps(axis, 1);
  const double step = static_cast<double>(axis.framed()) / static_cast<double>(axis.target);
  double position = step * 0.5;
  const std::vector<std::int32_t> one = {1 << kResampleBits};
  for (std::int64_t out = 0; out < axis.begin + axis.length; ++out, position += step) {
    const auto pixel = static_cast<std::int64_t>(position);
    if (out >= axis.begin && pixel < axis.framed())
      store_taps(taps, static_cast<std::size_t>(out - axis.begin), axis, pixel, one);
  }
  return taps;
}

ResampleTaps identity_taps(const ResampleAxis& axis) {
  ResampleTaps taps = empty_taps(axis, 1);
  for (std::int64_t i = 0; i < axis.length; ++i)
    store_taps(taps, static_cast<std::size_t>(i), axis, axis.begin + i, {1 << kResampleBits});
  return taps;
}

}  // namespace

ResampleTaps make_resample_taps(const ResampleAxis& axis, ResampleFilter filter) {
  if (axis.target == axis.framed()) return identity_taps(axis);
  if (filter == ResampleFilter::kNearest) return nearest_taps(axis);
  const FilterKind kind = filter_kind(filter);
  const double scale = static_cast<double>(axis.framed()) / static_cast<double>(axis.target);
  const double filter_scale = std::max(scale, 1.0);
  const double support = kind.support * filter_scale, inverse = 1.0 / filter_scale;
  const auto widest = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
  ResampleTaps taps = empty_taps(axis, std::min(widest, axis.source));
  std::vector<double> exact;
  std::vector<std::int32_t> fixed;
  for (std::int64_t i = 0; i < axis.length; ++i) {
    const double center = (static_cast<double>(axis.begin + i) + 0.5) * scale;
    const auto first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto last = std::min(static_cast<std::int64_t>(center + support + 0.5), axis.framed());
    exact.clear();
    double total = 0.0;
    for (std::int64_t x = 0; x < last - first; ++x) {
      exact.push_back(kind.weight((static_cast<double>(x + first) - center + 0.5) * inverse));
      total += exact.back();
    }
    fixed.clear();
    for (const double weight : exact) fixed.push_back(to_fixed(total != 0.0 ? weight / total : weight));
    store_taps(taps, static_cast<std::size_t>(i), axis, first, fixed);
  }
  return taps;
}

}  // namespace llava
