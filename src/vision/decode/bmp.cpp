#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "vision/decode/codec.h"

// Windows and OS/2 bitmaps: 1, 4, 8, 16, 24 and 32 bits, bit fields, RLE4 and RLE8, either row order.
// Little-endian.
namespace llava::codec {

namespace {

enum Compression : std::uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitFields = 3 };

/// Little-endian reads; past the end is Error{kFormat}.
class Bytes {
 public:
  explicit Bytes(std::string_view bytes) : bytes_(bytes) {}
  std::size_t size() const { return bytes_.size(); }
  std::uint32_t u8(std::size_t at) const { return read(at, 1); }
  std::uint32_t u16(std::size_t at) const { return read(at, 2); }
  std::uint32_t u32(std::size_t at) const { return read(at, 4); }
  const std::uint8_t* span(std::size_t at, std::size_t n) const {
    if (at > bytes_.size() || n > bytes_.size() - at) fail(ErrorKind::kFormat, "the file is truncated");
    return reinterpret_cast<const std::uint8_t*>(bytes_.data()) + at;
  }

 private:
  std::uint32_t read(std::size_t at, std::size_t n) const {
    const std::uint8_t* p = span(at, n);
    std::uint32_t value = 0;
    for (std::size_t i = n; i-- > 0;) value = value << 8 | p[i];
    return value;
  }
  std::string_view bytes_;
};

struct BmpHeader {
  ImageSize size;
  bool top_down = false;
  std::uint32_t bits = 0, compression = kRaw;
  std::array<std::uint32_t, 3> masks = {};  ///< red, green, blue, with 16 and 32 bits
  std::size_t palette_at = 0, palette_entry = 4, colours = 0, pixels_at = 0;
};

constexpr std::array<std::uint32_t, 3> kRgb555 = {0x7C00, 0x3E0, 0x1F};
constexpr std::array<std::uint32_t, 3> kRgb888 = {0xFF0000, 0xFF00, 0xFF};

void read_dimensions(const Bytes& in, std::uint32_t header_size, BmpHeader& h) {
  if (header_size == 12) {
    h.size = {in.u16(18), in.u16(20)};
    h.bits = in.u16(24);
    h.palette_entry = 3;
    return;
  }
  const auto height = static_cast<std::int32_t>(in.u32(22));
  h.top_down = height < 0;
  h.size = {in.u32(18), std::abs(static_cast<std::int64_t>(height))};
  h.bits = in.u16(28);
  h.compression = in.u32(30);
  h.colours = in.u32(46);
}

/// The channel masks, which follow a 40-byte header and are part of longer ones (all at byte 54).
void read_masks(const Bytes& in, BmpHeader& h) {
  h.masks = h.bits == 16 ? kRgb555 : kRgb888;
  if (h.compression != kBitFields) return;
  std::array<std::uint32_t, 3> masks = {in.u32(54), in.u32(58), in.u32(62)};
  if (h.bits == 32 && masks == std::array<std::uint32_t, 3>{0, 0, 0}) masks = kRgb888;
  std::uint32_t seen = 0;
  for (const std::uint32_t mask : masks) {
    const std::uint32_t low = mask == 0 ? 0 : mask >> std::countr_zero(mask);
    if (mask == 0 || (low & (low + 1)) != 0 || (seen & mask) != 0 || low > 0xFF)
      fail(ErrorKind::kUnsupported, "channel masks {:#x} {:#x} {:#x}", masks[0], masks[1], masks[2]);
    seen |= mask;
  }
  h.masks = masks;
}

void check_kind(const BmpHeader& h) {
  const bool indexed = h.bits == 1 || h.bits == 4 || h.bits == 8;
  const bool direct = h.bits == 16 || h.bits == 24 || h.bits == 32;
  const bool known = (h.compression == kRaw && (indexed || direct)) ||
                     (h.compression == kRle8 && h.bits == 8) || (h.compression == kRle4 && h.bits == 4) ||
                     (h.compression == kBitFields && direct);
  if (!known) fail(ErrorKind::kUnsupported, "{} bits a pixel with compression {}", h.bits, h.compression);
}

BmpHeader read_header(const Bytes& in) {
  const std::uint32_t header_size = in.u32(14);
  constexpr std::array<std::uint32_t, 7> kSizes = {12, 40, 52, 56, 64, 108, 124};
  if (std::find(kSizes.begin(), kSizes.end(), header_size) == kSizes.end())
    fail(ErrorKind::kUnsupported, "a header of {} bytes", header_size);
  in.span(14, header_size);
  BmpHeader h;
  read_dimensions(in, header_size, h);
  check_kind(h);
  const std::size_t end = 14 + std::size_t{header_size};
  std::size_t masks_after = 0;
  if (h.bits > 8) {
    read_masks(in, h);
    masks_after = h.compression == kBitFields && header_size == 40 ? 12 : 0;
  } else {
    if (h.colours == 0) h.colours = std::size_t{1} << h.bits;
    if (h.colours > 65536) fail(ErrorKind::kFormat, "a palette of {} colours", h.colours);
    h.palette_at = end;
    in.span(end, h.colours * h.palette_entry);
  }
  const std::size_t after_tables = end + masks_after + (h.bits > 8 ? 0 : h.colours * h.palette_entry);
  h.pixels_at = in.u32(10);
  // No offset, or one that forgets the palette: the pixels follow the tables.
  if (h.pixels_at == 0 || (h.bits <= 8 && h.pixels_at == end)) h.pixels_at = after_tables;
  return h;
}

Palette read_palette(const Bytes& in, const BmpHeader& h) {
  Palette palette;
  for (std::size_t i = 0; i < std::min<std::size_t>(h.colours, 256); ++i) {
    const std::uint8_t* blue_green_red = in.span(h.palette_at + i * h.palette_entry, 3);
    palette.set(i, blue_green_red[2], blue_green_red[1], blue_green_red[0]);
  }
  return palette;
}

/// One channel of a 16- or 32-bit pixel, scaled to 8 bits.
struct Channel {
  std::uint32_t shift = 0, top = 0;  ///< top: its largest value
  explicit Channel(std::uint32_t mask)
      : shift(static_cast<std::uint32_t>(std::countr_zero(mask))), top(mask >> shift) {}
  std::uint8_t operator()(std::uint32_t pixel) const {
    return static_cast<std::uint8_t>((pixel >> shift & top) * 255 / top);
  }
};

void read_direct_row(const std::uint8_t* in, const BmpHeader& h, std::uint8_t* rgb) {
  const std::array<Channel, 3> channels = {Channel(h.masks[0]), Channel(h.masks[1]), Channel(h.masks[2])};
  const std::size_t bytes = h.bits / 8;
  for (std::int64_t x = 0; x < h.size.width; ++x, in += bytes, rgb += 3) {
    std::uint32_t pixel = 0;
    for (std::size_t i = bytes; i-- > 0;) pixel = pixel << 8 | in[i];
    for (std::size_t c = 0; c < 3; ++c) rgb[c] = channels[c](pixel);
  }
}

void read_index_row(const std::uint8_t* in, const BmpHeader& h, std::uint8_t* indices) {
  const std::uint32_t per_byte = 8 / h.bits, mask = (1U << h.bits) - 1;
  for (std::int64_t x = 0; x < h.size.width; ++x) {
    const auto place = static_cast<std::uint32_t>(x) % per_byte;  // the first pixel is in the high bits
    indices[x] = static_cast<std::uint8_t>(in[x / per_byte] >> (8 - h.bits * (place + 1)) & mask);
  }
}

/// Rows are padded to 4 bytes. `row_of(y)` is where the y-th row of the image (top first) goes.
template <class RowOf>
void read_raw(const Bytes& in, const BmpHeader& h, const RowOf& row_of) {
  const std::size_t stride = (static_cast<std::size_t>(h.size.width) * h.bits + 31) / 32 * 4;
  const std::uint8_t* rows = in.span(h.pixels_at, stride * static_cast<std::size_t>(h.size.height));
  for (std::int64_t i = 0; i < h.size.height; ++i) {
    std::uint8_t* row = row_of(h.top_down ? i : h.size.height - 1 - i);
    const std::uint8_t* source = rows + static_cast<std::size_t>(i) * stride;
    h.bits > 8 ? read_direct_row(source, h, row) : read_index_row(source, h, row);
  }
}

/// Run-length codes in file order. Pixels they skip keep index 0, as in Pillow.
class RleReader {
 public:
  RleReader(const Bytes& in, const BmpHeader& h)
      : in_(in),
        at_(h.pixels_at),
        width_(h.size.width),
        total_(h.size.width * h.size.height),
        nibbles_(h.compression == kRle4) {}

  /// Fills width * height indices, which must be zero on entry. An end code before the last pixel is an
  /// error, as in Pillow.
  void read(std::uint8_t* indices) {
    while (position_ < total_) {
      const std::uint32_t count = in_.u8(at_), value = in_.u8(at_ + 1);
      at_ += 2;
      if (count != 0) {
        run(indices, count, value);
      } else if (value == 0) {
        end_line();
      } else if (value == 1) {
        fail(ErrorKind::kFormat, "the run-length data ends after {} of {} pixels", position_, total_);
      } else if (value == 2) {
        skip(in_.u8(at_), in_.u8(at_ + 1));
      } else {
        literal(indices, value);
      }
    }
  }

 private:
  void put(std::uint8_t* indices, std::uint32_t index) {
    if (position_ < total_) indices[position_++] = static_cast<std::uint8_t>(index);
  }

  void run(std::uint8_t* indices, std::int64_t count, std::uint32_t value) {
    count = std::clamp<std::int64_t>(
        count, 0, std::max<std::int64_t>(width_ - column_, 0));  // a run stays in its row
    for (std::int64_t i = 0; i < count; ++i)
      put(indices, !nibbles_ ? value : i % 2 == 0 ? value >> 4 : value & 15);
    column_ += count;
  }

  void end_line() {
    position_ = (position_ + width_ - 1) / width_ * width_;
    column_ = 0;
  }

  void skip(std::int64_t right, std::int64_t rows) {
    at_ += 2;
    position_ = std::min(total_, position_ + right + rows * width_);
    column_ = position_ % width_;
  }

  void literal(std::uint8_t* indices, std::uint32_t count) {
    const std::size_t bytes = nibbles_ ? (count + 1) / 2 : count;
    const std::uint8_t* values = in_.span(at_, std::min(bytes, in_.size() - std::min(at_, in_.size())));
    const auto wanted = static_cast<std::size_t>(std::min<std::int64_t>(count, total_ - position_));
    in_.span(at_, nibbles_ ? (wanted + 1) / 2 : wanted);
    for (std::size_t i = 0; i < wanted; ++i)
      put(indices, !nibbles_ ? values[i] : i % 2 == 0 ? values[i / 2] >> 4 : values[i / 2] & 15);
    at_ += bytes;
    column_ += count;
    at_ += at_ % 2;  // codes start at even file positions
  }

  const Bytes& in_;
  std::size_t at_;
  std::int64_t width_, total_, position_ = 0, column_ = 0;
  bool nibbles_;
};

void flip_rows(std::uint8_t* indices, const ImageSize& size) {
  for (std::int64_t y = 0; y < size.height / 2; ++y)
    std::swap_ranges(indices + y * size.width, indices + (y + 1) * size.width,
                     indices + (size.height - 1 - y) * size.width);
}

}  // namespace

Header probe_bmp(std::string_view bytes) { return {read_header(Bytes(bytes)).size, 1}; }

Decoded decode_bmp(std::string_view bytes, const ImageLimits& limits) {
  const Bytes in(bytes);
  const BmpHeader h = read_header(in);
  Decoded decoded{allocate(h.size, limits), 1};
  std::uint8_t* buffer = decoded.image.rgb.data();
  if (h.bits > 8) {
    read_raw(in, h, [&](std::int64_t y) { return buffer + y * h.size.width * 3; });
    return decoded;
  }
  if (h.compression == kRaw) {
    read_raw(in, h, [&](std::int64_t y) { return buffer + y * h.size.width; });
  } else {
    RleReader(in, h).read(buffer);
    if (!h.top_down) flip_rows(buffer, h.size);
  }
  expand_palette(buffer, decoded.image.rgb.size() / 3, read_palette(in, h));
  return decoded;
}

}  // namespace llava::codec
