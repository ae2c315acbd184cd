#include "vision/resample.h"

#include <algorithm>
#include <cstring>

#include "vision/scratch.h"

namespace llava {

namespace {

constexpr std::size_t kBlockRows = 32;  // rows transposed at a time; 96 lanes are three vector groups
constexpr std::size_t kBlockLanes = kBlockRows * 3;
constexpr std::int64_t kMaxResultBytes = std::int64_t{1} << 31;
constexpr std::int64_t kMaxResultSide = 1 << 20;

struct Range {
  std::int64_t begin = 0, end = 0;
};

/// Source pixels that the taps touch.
Range touched(const ResampleTaps& taps) {
  Range range{0, 0};
  for (std::size_t i = 0; i < taps.first.size(); ++i) {
    if (taps.count[i] == 0) continue;
    const std::int64_t end = taps.first[i] + taps.count[i];
    if (range.end == 0) range = {taps.first[i], end};
    range = {std::min(range.begin, taps.first[i]), std::max(range.end, end)};
  }
  return range;
}

/// Pixels to resize along one axis: `rows` rows, `stride` bytes apart.
struct Source {
  const std::uint8_t* pixels = nullptr;
  std::size_t stride = 0, rows = 0;
};

/// block[x][3 r + c] = channel c of pixel (x, row + r), for x < columns and r < rows <= kBlockRows.
void transpose_in(const Source& source, std::size_t columns, std::size_t row, std::size_t rows,
                  std::uint8_t* block) {
  for (std::size_t r = 0; r < rows; ++r) {
    const std::uint8_t* in = source.pixels + (row + r) * source.stride;
    std::uint8_t* out = block + 3 * r;
    for (std::size_t x = 0; x < columns; ++x, in += 3, out += kBlockLanes) std::memcpy(out, in, 3);
  }
}

/// All rows resized along x: [rows][window][3]. source.pixels is at column `columns.begin`; `frame` has the
/// frame's colour in each row, 3 bytes a row.
std::vector<std::uint8_t> horizontal_pass(const Source& source, const ResampleTaps& taps, Range columns,
                                          std::vector<std::uint8_t> frame) {
  const std::size_t window = taps.first.size();
  const auto width = static_cast<std::size_t>(columns.end - columns.begin);
  std::vector<std::uint8_t> result = take_scratch(source.rows * window * 3);
  std::vector<std::uint8_t> block = take_scratch(width * kBlockLanes + 1);
  frame.resize(frame.size() + kBlockLanes);  // the last block reads whole lanes
  std::uint8_t sums[kBlockLanes];
  for (std::size_t row = 0; row < source.rows; row += kBlockRows) {
    const std::size_t count = std::min(kBlockRows, source.rows - row);
    transpose_in(source, width, row, count, block.data());
    std::uint8_t* out = result.data() + row * window * 3;
    for (std::size_t x = 0; x < window; ++x) {
      const std::size_t first =
          taps.count[x] == 0 ? 0 : static_cast<std::size_t>(taps.first[x] - columns.begin);
      weigh_rows(block.data() + first * kBlockLanes, kBlockLanes, taps.weights_of(x), taps.count[x],
                 frame.data() + row * 3, taps.frame_weight[x], sums, kBlockLanes);
      for (std::size_t r = 0; r < count; ++r) std::memcpy(out + (r * window + x) * 3, sums + 3 * r, 3);
    }
  }
  keep_scratch(std::move(block));
  return result;
}

/// All columns resized along y: [window][lanes]. source.pixels is at row `rows.begin`; `frame` is a row of
/// the frame.
std::vector<std::uint8_t> vertical_pass(const Source& source, const ResampleTaps& taps, Range rows,
                                        const std::vector<std::uint8_t>& frame) {
  const std::size_t lanes = frame.size();
  std::vector<std::uint8_t> result = take_scratch(taps.first.size() * lanes);
  for (std::size_t y = 0; y < taps.first.size(); ++y) {
    const std::size_t first = taps.count[y] == 0 ? 0 : static_cast<std::size_t>(taps.first[y] - rows.begin);
    weigh_rows(source.pixels + first * source.stride, source.stride, taps.weights_of(y), taps.count[y],
               frame.data(), taps.frame_weight[y], result.data() + y * lanes, lanes);
  }
  return result;
}

/// `count` pixels of one colour.
std::vector<std::uint8_t> flat_line(std::size_t count, const std::array<std::uint8_t, 3>& colour) {
  std::vector<std::uint8_t> line(count * 3);
  for (std::size_t i = 0; i < line.size(); ++i) line[i] = colour[i % 3];
  return line;
}

/// A line made of one colour alone, after resizing: nearly that colour, but for the rounding of the
/// weights.
std::vector<std::uint8_t> resized_flat_line(const ResampleTaps& taps,
                                            const std::array<std::uint8_t, 3>& colour) {
  std::vector<std::uint8_t> line(taps.first.size() * 3);
  for (std::size_t i = 0; i < taps.first.size(); ++i) {
    std::int32_t total = taps.frame_weight[i];
    for (std::int32_t k = 0; k < taps.count[i]; ++k) total += taps.weights_of(i)[k];
    weigh_rows(nullptr, 0, nullptr, 0, colour.data(), total, line.data() + i * 3, 3);
  }
  return line;
}

/// The order of the passes shows in the result, because bytes are rounded and clipped between them. The
/// rule is that of Pillow 13.0.0, found by comparing it with both orders on 12,000 random sizes
/// (tools/reference/check_resize_order.py); Pillow 11.3 and 12.0 always go along x first.
bool vertical_first(const ResampleJob& job) {
  const std::int64_t fewer_rows = job.y.framed() - job.y.target,
                     fewer_columns = job.x.framed() - job.x.target;
  return fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
}

void check_axis(const ResampleAxis& axis, std::int64_t size) {
  LLAVA_ASSERT(axis.source == size && size > 0 && axis.before >= 0 && axis.after >= 0, "resample source");
  LLAVA_ASSERT(
      axis.target > 0 && axis.begin >= 0 && axis.length > 0 && axis.begin + axis.length <= axis.target,
      "resample window");
}

}  // namespace

Image resample(const Image& image, const ResampleJob& job) {
  check_axis(job.x, image.width);
  check_axis(job.y, image.height);
  LLAVA_ASSERT(static_cast<std::int64_t>(image.rgb.size()) == image.width * image.height * 3,
               "image buffer");
  if (std::max(job.x.length, job.y.length) > kMaxResultSide ||
      job.x.length > kMaxResultBytes / 3 / job.y.length)
    fail(ErrorKind::kResource, "a resized image of {} x {} is too large", job.x.length, job.y.length);
  const ResampleTaps along_x = make_resample_taps(job.x, job.filter);
  const ResampleTaps along_y = make_resample_taps(job.y, job.filter);
  const Range columns = touched(along_x), rows = touched(along_y);
  const std::size_t stride = static_cast<std::size_t>(image.width) * 3;
  const Source source{image.rgb.data() + static_cast<std::size_t>(rows.begin) * stride, stride,
                      static_cast<std::size_t>(rows.end - rows.begin)};
  const Source shifted{source.pixels + columns.begin * 3, stride, source.rows};
  Image result{job.x.length, job.y.length, {}};
  if (vertical_first(job)) {
    const auto width = static_cast<std::size_t>(columns.end - columns.begin);
    auto middle = vertical_pass(shifted, along_y, rows, flat_line(width, job.frame_colour));
    const Source rest{middle.data(), width * 3, static_cast<std::size_t>(job.y.length)};
    result.rgb = horizontal_pass(rest, along_x, columns, resized_flat_line(along_y, job.frame_colour));
    keep_scratch(std::move(middle));
  } else {
    auto middle =
        horizontal_pass(shifted, along_x, columns, flat_line(source.rows, job.frame_colour));
    const Source rest{middle.data(), static_cast<std::size_t>(job.x.length) * 3, source.rows};
    result.rgb = vertical_pass(rest, along_y, rows, resized_flat_line(along_x, job.frame_colour));
    keep_scratch(std::move(middle));
  }
  return result;
}

Image resize_image(const Image& image, std::int64_t width, std::int64_t height, ResampleFilter filter) {
  if (image.width <= 0 || image.height <= 0 || width <= 0 || height <= 0)
    fail(ErrorKind::kInput, "cannot resize an image of {} x {} to {} x {}", image.width, image.height,
         width, height);
  if (width == image.width && height == image.height) return image;
  ResampleJob job;
  job.x = {.source = image.width, .target = width, .length = width};
  job.y = {.source = image.height, .target = height, .length = height};
  job.filter = filter;
  return resample(image, job);
}

namespace {

std::vector<std::int64_t> nearest_sources(std::int64_t in, std::int64_t out) {
  std::vector<std::int64_t> sources;
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  for (std::int64_t i = 0; i < out; ++i)
    sources.push_back(std::min(static_cast<std::int64_t>(std::floor(static_cast<float>(i) * scale)), in - 1));
  return sources;
}

}  // namespace

Image squash_nearest(const Image& image, const ImageSize& size) {
  const std::vector<std::int64_t> columns = nearest_sources(image.width, size.width);
  Image result{size.width, size.height, {}};
  result.rgb.reserve(static_cast<std::size_t>(size.width * size.height * 3));
  for (const std::int64_t y : nearest_sources(image.height, size.height))
    for (const std::int64_t x : columns) {
      const auto pixel = image.rgb.begin() + (y * image.width + x) * 3;
      result.rgb.insert(result.rgb.end(), pixel, pixel + 3);
    }
  return result;
}

}  // namespace llava
