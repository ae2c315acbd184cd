#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "vision/video.h"

namespace llava {

namespace {

/// Python's round(): halves to the even neighbour, whatever the rounding mode.
double round_half_even(double x) {
  const double down = std::floor(x), rest = x - down;
  if (rest != 0.5) return std::round(x);
  return std::fmod(down, 2.0) == 0.0 ? down : down + 1;
}

/// numpy.linspace(0, total - 1, count, dtype=int).
std::vector<std::int64_t> spread(std::int64_t total, std::int64_t count) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count), 0);
  if (count == 1) return indices;
  const double step = static_cast<double>(total - 1) / static_cast<double>(count - 1);
  for (std::int64_t i = 0; i < count; ++i)
    indices[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(static_cast<double>(i) * step);
  indices.back() = total - 1;
  return indices;
}

/// The middle frame of each of `count` equal parts.
std::vector<std::int64_t> middles(std::int64_t total, std::int64_t count) {
  const double part = static_cast<double>(total - 1) / static_cast<double>(count);
  const auto edge = [&](std::int64_t i) {
    return static_cast<std::int64_t>(round_half_even(part * static_cast<double>(i)));
  };
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < count; ++i) indices.push_back((edge(i) + edge(i + 1)) / 2);
  return indices;
}

}  // namespace

FramePick pick_frames(std::int64_t total, double fps, const FrameSampling& sampling) {
  if (total < 1) fail(ErrorKind::kInput, "the video has no frames");
  if (!(fps > 0) || !std::isfinite(fps)) fail(ErrorKind::kInput, "the video has {} frames a second", fps);
  if (!(sampling.fps > 0) || !std::isfinite(sampling.fps) || sampling.max_frames < 0)
    fail(ErrorKind::kUsage, "frames cannot be sampled at {} a second, at most {}", sampling.fps,
         sampling.max_frames);
  FramePick pick;
  pick.duration = static_cast<double>(total) / fps;
  if (sampling.midpoints) {
    const std::int64_t seconds = std::clamp<std::int64_t>(static_cast<std::int64_t>(pick.duration * sampling.fps), 1, total);
    pick.indices = middles(total, sampling.max_frames > 0 && (sampling.force_sample || seconds > sampling.max_frames)
                                      ? sampling.max_frames
                                      : seconds);
    for (const std::int64_t i : pick.indices) pick.times.push_back(static_cast<double>(i) / fps);
    return pick;
  }
  const double rounded = std::clamp(round_half_even(fps / sampling.fps), 1.0, 1e9);
  const auto step = static_cast<std::int64_t>(rounded);
  const std::int64_t regular = (total + step - 1) / step;
  if (sampling.max_frames > 0 && (sampling.force_sample || regular > sampling.max_frames)) {
    pick.indices = spread(total, sampling.max_frames);
    for (const std::int64_t i : pick.indices) pick.times.push_back(static_cast<double>(i) / fps);
    return pick;
  }
  for (std::int64_t i = 0; i < total; i += step) {
    pick.indices.push_back(i);
    pick.times.push_back(static_cast<double>(i) / static_cast<double>(step));
  }
  return pick;
}

std::string time_instruction(const FramePick& pick) {
  std::string times;
  for (const double time : pick.times) times += fmt::format("{}{:.2f}s", times.empty() ? "" : ",", time);
  return fmt::format(
      "The video lasts for {:.2f} seconds, and {} frames are uniformly sampled from it. These frames are located "
      "at {}.Please answer the following questions related to this video.",
      pick.duration, pick.indices.size(), times);
}

}  // namespace llava
