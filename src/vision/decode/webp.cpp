#include <memory>

#include <webp/decode.h>
#include <webp/demux.h>

#include "vision/decode/codec.h"

namespace llava::codec {

namespace {

const std::uint8_t* data_of(std::string_view bytes) {
  return reinterpret_cast<const std::uint8_t*>(bytes.data());
}

using Demuxer = std::unique_ptr<WebPDemuxer, decltype(&WebPDemuxDelete)>;

Demuxer open_container(std::string_view bytes) {
  const WebPData data{data_of(bytes), bytes.size()};
  Demuxer demuxer(WebPDemux(&data), WebPDemuxDelete);
  if (!demuxer) fail(ErrorKind::kFormat, "the file is truncated or corrupt");
  return demuxer;
}

int orientation_of(const WebPDemuxer* demuxer) {
  WebPChunkIterator chunk;
  int orientation = 1;
  if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk) != 0)
    orientation = exif_orientation({reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size});
  WebPDemuxReleaseChunkIterator(&chunk);
  return orientation;
}

struct FrameIterator {
  WebPIterator frame{};
  FrameIterator() = default;
  FrameIterator(const FrameIterator&) = delete;
  FrameIterator& operator=(const FrameIterator&) = delete;
  ~FrameIterator() { WebPDemuxReleaseIterator(&frame); }
};

Header header_of(const WebPDemuxer* demuxer) {
  return {{WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH), WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT)},
          orientation_of(demuxer)};
}

}  // namespace

Header probe_webp(std::string_view bytes) { return header_of(open_container(bytes).get()); }

/// The first frame on its canvas, which is black around it, as libwebp's animation decoder draws it for
/// Pillow.
Decoded decode_webp(std::string_view bytes, const ImageLimits& limits) {
  const Demuxer demuxer = open_container(bytes);
  const Header header = header_of(demuxer.get());
  Decoded decoded{allocate(header.size, limits), header.orientation};
  Image& image = decoded.image;
  FrameIterator first;
  if (WebPDemuxGetFrame(demuxer.get(), 1, &first.frame) == 0)
    fail(ErrorKind::kFormat, "the file holds no picture");
  const WebPIterator& frame = first.frame;
  WebPBitstreamFeatures features;
  const bool same_size =
      WebPGetFeatures(frame.fragment.bytes, frame.fragment.size, &features) == VP8_STATUS_OK &&
      features.width == frame.width && features.height == frame.height;
  const bool inside = frame.x_offset >= 0 && frame.y_offset >= 0 &&
                      frame.x_offset + frame.width <= image.width &&
                      frame.y_offset + frame.height <= image.height;
  if (frame.complete == 0 || !same_size || !inside)
    fail(ErrorKind::kFormat, "the first frame is incomplete or misplaced");
  const auto offset = static_cast<std::size_t>((frame.y_offset * image.width + frame.x_offset) * 3);
  if (WebPDecodeRGBInto(frame.fragment.bytes, frame.fragment.size, image.rgb.data() + offset,
                        image.rgb.size() - offset, static_cast<int>(image.width * 3)) == nullptr)
    fail(ErrorKind::kFormat, "the pixel data is corrupt");
  return decoded;
}

}  // namespace llava::codec
