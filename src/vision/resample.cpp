#include "vision/resample.h"

#include <algorithm>
#include <cstring>

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

/// columns[x][3 r + c] = channel c of pixel (columns.begin + x, row + r), for `rows` <= kBlockRows rows.
void transpose_in(const Image& image, Range columns, std::int64_t row, std::size_t rows,
                  std::uint8_t* block) {
  const auto n = static_cast<std::size_t>(columns.end - columns.begin);
  for (std::size_t r = 0; r < rows; ++r) {
    const auto y = static_cast<std::size_t>(row) + r;
    const std::uint8_t* in =
        image.rgb.data() +
        (y * static_cast<std::size_t>(image.width) + static_cast<std::size_t>(columns.begin)) * 3;
    std::uint8_t* out = block + 3 * r;
    for (std::size_t x = 0; x < n; ++x, in += 3, out += kBlockLanes) std::memcpy(out, in, 3);
  }
}

/// Rows [rows.begin, rows.end) of the image resized along x: [rows][window][3].
std::vector<std::uint8_t> horizontal_pass(const Image& image, const ResampleTaps& taps, Range rows,
                                          const std::array<std::uint8_t, 3>& colour) {
  const std::size_t window = taps.first.size();
  std::vector<std::uint8_t> result(static_cast<std::size_t>(rows.end - rows.begin) * window * 3);
  const Range columns = touched(taps);
  std::vector<std::uint8_t> block(static_cast<std::size_t>(columns.end - columns.begin) * kBlockLanes + 1);
  std::uint8_t frame[kBlockLanes], sums[kBlockLanes];
  for (std::size_t lane = 0; lane < kBlockLanes; ++lane) frame[lane] = colour[lane % 3];
  for (std::int64_t row = rows.begin; row < rows.end; row += static_cast<std::int64_t>(kBlockRows)) {
    const std::size_t count = std::min(kBlockRows, static_cast<std::size_t>(rows.end - row));
    transpose_in(image, columns, row, count, block.data());
    std::uint8_t* out = result.data() + static_cast<std::size_t>(row - rows.begin) * window * 3;
    for (std::size_t x = 0; x < window; ++x) {
      const std::size_t first =
          taps.count[x] == 0 ? 0 : static_cast<std::size_t>(taps.first[x] - columns.begin);
      weigh_rows(block.data() + first * kBlockLanes, kBlockLanes, taps.weights_of(x), taps.count[x], frame,
                 taps.frame_weight[x], sums, kBlockLanes);
      for (std::size_t r = 0; r < count; ++r) std::memcpy(out + (r * window + x) * 3, sums + 3 * r, 3);
    }
  }
  return result;
}

/// A row made of the frame's colour alone, resized along x.
std::vector<std::uint8_t> frame_row(const ResampleTaps& taps, const std::array<std::uint8_t, 3>& colour) {
  std::vector<std::uint8_t> row(taps.first.size() * 3);
  for (std::size_t x = 0; x < taps.first.size(); ++x) {
    std::int32_t total = taps.frame_weight[x];
    for (std::int32_t k = 0; k < taps.count[x]; ++k) total += taps.weights_of(x)[k];
    weigh_rows(nullptr, 0, nullptr, 0, colour.data(), total, row.data() + x * 3, 3);
  }
  return row;
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
  const Range rows = touched(along_y);
  const std::vector<std::uint8_t> middle = horizontal_pass(image, along_x, rows, job.frame_colour);
  const std::vector<std::uint8_t> frame = frame_row(along_x, job.frame_colour);
  const auto lanes = static_cast<std::size_t>(job.x.length) * 3;
  Image result{job.x.length, job.y.length,
               std::vector<std::uint8_t>(lanes * static_cast<std::size_t>(job.y.length))};
  for (std::size_t y = 0; y < along_y.first.size(); ++y) {
    const std::size_t first =
        along_y.count[y] == 0 ? 0 : static_cast<std::size_t>(along_y.first[y] - rows.begin);
    weigh_rows(middle.data() + first * lanes, lanes, along_y.weights_of(y), along_y.count[y], frame.data(),
               along_y.frame_weight[y], result.rgb.data() + y * lanes, lanes);
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

}  // namespace llava
