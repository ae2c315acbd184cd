extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>
}

#include <cmath>
#include <memory>
#include <string>

#include "base/error.h"
#include "vision/decode/codec.h"
#include "vision/decode/frame_folder.h"

// FFmpeg's libraries on hostile files: containers of a fixed list, local files only, sizes checked before
// anything is allocated for them.
namespace llava::film_file {

namespace {

namespace fs = std::filesystem;

constexpr const char* kContainers =
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,ivf,h264,hevc,m4v";

template <auto Free>
struct Release {
  template <typename T>
  void operator()(T* p) const {
    Free(&p);
  }
};
using Container = std::unique_ptr<AVFormatContext, Release<avformat_close_input>>;
using Decoder = std::unique_ptr<AVCodecContext, Release<avcodec_free_context>>;
using Frame = std::unique_ptr<AVFrame, Release<av_frame_free>>;
using Packet = std::unique_ptr<AVPacket, Release<av_packet_free>>;
struct FreeScaler {
  void operator()(SwsContext* p) const { sws_freeContext(p); }
};
using Scaler = std::unique_ptr<SwsContext, FreeScaler>;

std::string reason(int code) {
  char text[AV_ERROR_MAX_STRING_SIZE] = {};
  av_strerror(code, text, sizeof text);
  return text;
}

/// An open film: the container and its best video stream.
class Film {
 public:
  Film(const fs::path& path, const VideoLimits& limits) : path_(path.string()), limits_(limits) {
    av_log_set_level(AV_LOG_QUIET);
    AVFormatContext* raw = nullptr;
    AVDictionary* options = nullptr;
    av_dict_set(&options, "protocol_whitelist", "file", 0);
    av_dict_set(&options, "format_whitelist", kContainers, 0);
    const std::string url = "file:" + path_;
    const int opened = avformat_open_input(&raw, url.c_str(), nullptr, &options);
    av_dict_free(&options);
    if (opened < 0) fail(ErrorKind::kFormat, "{}: not a film that can be read: {}", path_, reason(opened));
    container_.reset(raw);
    const int found = avformat_find_stream_info(container_.get(), nullptr);
    if (found < 0) fail(ErrorKind::kFormat, "{}: {}", path_, reason(found));
    stream_ = av_find_best_stream(container_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    if (stream_ < 0) fail(ErrorKind::kInput, "{}: the file has no video stream", path_);
    for (unsigned i = 0; i < container_->nb_streams; ++i)
      if (static_cast<int>(i) != stream_) container_->streams[i]->discard = AVDISCARD_ALL;
    codec::check_size({stream()->codecpar->width, stream()->codecpar->height}, limits.image);
  }

  AVStream* stream() const { return container_->streams[stream_]; }
  const std::string& path() const { return path_; }

  /// The next packet of the stream; 0, AVERROR_EOF or another error.
  int next(AVPacket* packet) const {
    for (;;) {
      av_packet_unref(packet);
      const int code = av_read_frame(container_.get(), packet);
      if (code < 0 || packet->stream_index == stream_) return code;
    }
  }

  /// EXIF's number for the turn that makes frames upright.
  int orientation() const {
    std::int32_t* matrix = nullptr;
#if LIBAVFORMAT_VERSION_MAJOR >= 61
    const AVPacketSideData* data =
        av_packet_side_data_get(stream()->codecpar->coded_side_data, stream()->codecpar->nb_coded_side_data,
                                AV_PKT_DATA_DISPLAYMATRIX);
    if (data != nullptr && data->size >= 9 * sizeof(std::int32_t))
      matrix = reinterpret_cast<std::int32_t*>(data->data);
#else
    std::size_t size = 0;
    std::uint8_t* data = av_stream_get_side_data(stream(), AV_PKT_DATA_DISPLAYMATRIX, &size);
    if (data != nullptr && size >= 9 * sizeof(std::int32_t)) matrix = reinterpret_cast<std::int32_t*>(data);
#endif
    if (matrix == nullptr) return 1;
    const double clockwise = -av_display_rotation_get(matrix);
    if (!std::isfinite(clockwise)) return 1;
    switch (((static_cast<int>(std::lround(clockwise / 90)) % 4) + 4) % 4) {
      case 1:
        return 6;
      case 2:
        return 3;
      case 3:
        return 8;
      default:
        return 1;
    }
  }

  double fps() const {
    const AVRational average = stream()->avg_frame_rate, real = stream()->r_frame_rate;
    const AVRational rate = average.num > 0 && average.den > 0 ? average : real;
    return rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
  }

  Decoder open_decoder() const {
    const AVCodec* codec = avcodec_find_decoder(stream()->codecpar->codec_id);
    if (codec == nullptr)
      fail(ErrorKind::kUnsupported, "{}: no decoder for {}", path_,
           avcodec_get_name(stream()->codecpar->codec_id));
    Decoder decoder(avcodec_alloc_context3(codec));
    if (!decoder || avcodec_parameters_to_context(decoder.get(), stream()->codecpar) < 0)
      fail(ErrorKind::kResource, "{}: no memory for the decoder", path_);
    decoder->thread_count = 2;
    decoder->max_pixels = limits_.image.max_pixels;
    const int opened = avcodec_open2(decoder.get(), codec, nullptr);
    if (opened < 0) fail(ErrorKind::kFormat, "{}: {}", path_, reason(opened));
    return decoder;
  }

 private:
  std::string path_;
  VideoLimits limits_;
  Container container_;
  int stream_ = -1;
};

/// Decoded frames as upright RGB.
class Converter {
 public:
  Converter(int orientation, const VideoLimits& limits) : orientation_(orientation), limits_(limits) {}

  Image operator()(const AVFrame& frame) {
    const auto format = static_cast<AVPixelFormat>(frame.format);
    scaler_.reset(sws_getCachedContext(scaler_.release(), frame.width, frame.height, format, frame.width,
                                       frame.height, AV_PIX_FMT_RGB24, SWS_BILINEAR, nullptr, nullptr,
                                       nullptr));
    if (!scaler_) fail(ErrorKind::kUnsupported, "a frame's pixel format {} cannot be converted", frame.format);
    Image image = codec::allocate({frame.width, frame.height}, limits_.image);
    // rows padded for the scaler's vector stores
    const int stride = FFALIGN(frame.width * 3, 64);
    padded_.resize(static_cast<std::size_t>(stride) * static_cast<std::size_t>(frame.height) + 64);
    std::uint8_t* planes[4] = {padded_.data(), nullptr, nullptr, nullptr};
    const int strides[4] = {stride, 0, 0, 0};
    sws_scale(scaler_.get(), frame.data, frame.linesize, 0, frame.height, planes, strides);
    const auto row = static_cast<std::size_t>(frame.width) * 3;
    for (int y = 0; y < frame.height; ++y)
      std::copy_n(padded_.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(stride), row,
                  image.rgb.data() + static_cast<std::size_t>(y) * row);
    return codec::apply_orientation(std::move(image), orientation_);
  }

 private:
  int orientation_;
  const VideoLimits& limits_;
  Scaler scaler_;
  std::vector<std::uint8_t> padded_;
};

/// One pass over the film that hands out the wanted frames.
class Reader {
 public:
  Reader(const fs::path& path, const std::vector<std::int64_t>& indices,
         const std::function<bool(std::size_t, Image)>& on_frame, const VideoLimits& limits)
      : film_(path, limits),
        decoder_(film_.open_decoder()),
        convert_(film_.orientation(), limits),
        indices_(indices),
        on_frame_(on_frame),
        packet_(av_packet_alloc()),
        frame_(av_frame_alloc()) {
    if (!packet_ || !frame_) fail(ErrorKind::kResource, "{}: no memory for a frame", film_.path());
  }

  FramesRead run() {
    int code = 0;
    while (!done() && (code = film_.next(packet_.get())) >= 0) {
      if (avcodec_send_packet(decoder_.get(), packet_.get()) < 0) ++damaged_;
      drain();
    }
    if (!done()) {
      avcodec_send_packet(decoder_.get(), nullptr);
      drain();
    }
    if (!done()) result_.problem = describe(code);
    return result_;
  }

 private:
  bool done() const { return stopped_ || next_ == indices_.size(); }

  void drain() {
    while (!done()) {
      const int code = avcodec_receive_frame(decoder_.get(), frame_.get());
      if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
      if (code < 0) {
        ++damaged_;
        return;
      }
      for (; !done() && indices_[next_] == position_; ++next_) {
        if (on_frame_(next_, convert_(*frame_))) {
          ++result_.delivered;
        } else {
          stopped_ = true;
        }
      }
      ++position_;
      av_frame_unref(frame_.get());
    }
  }

  std::string describe(int code) const {
    std::string text = fmt::format("{}: the film ends after {} frames; frame {} was wanted", film_.path(),
                                   position_, indices_[next_]);
    if (code < 0 && code != AVERROR_EOF) text += ": " + reason(code);
    if (damaged_ > 0) text += fmt::format(" ({} damaged packets)", damaged_);
    return text;
  }

  Film film_;
  Decoder decoder_;
  Converter convert_;
  const std::vector<std::int64_t>& indices_;
  const std::function<bool(std::size_t, Image)>& on_frame_;
  Packet packet_;
  Frame frame_;
  FramesRead result_;
  std::size_t next_ = 0;
  std::int64_t position_ = 0, damaged_ = 0;
  bool stopped_ = false;
};

}  // namespace

VideoInfo probe(const fs::path& path, const VideoLimits& limits) {
  const Film film(path, limits);
  VideoInfo info;
  const Packet packet(av_packet_alloc());
  if (!packet) fail(ErrorKind::kResource, "{}: no memory for a packet", film.path());
  while (film.next(packet.get()) >= 0)
    if ((packet->flags & AV_PKT_FLAG_DISCARD) == 0 && ++info.frames > limits.max_frames)
      fail(ErrorKind::kInput, "{}: more than {} frames", film.path(), limits.max_frames);
  if (info.frames == 0) fail(ErrorKind::kInput, "{}: the video stream has no frames", film.path());
  info.fps = film.fps();
  if (info.fps <= 0) fail(ErrorKind::kFormat, "{}: the file says no frame rate", film.path());
  info.duration = static_cast<double>(info.frames) / info.fps;
  info.size = {film.stream()->codecpar->width, film.stream()->codecpar->height};
  if (film.orientation() > 4) std::swap(info.size.width, info.size.height);
  return info;
}

FramesRead read(const fs::path& path, const std::vector<std::int64_t>& indices,
                const std::function<bool(std::size_t i, Image frame)>& on_frame, const VideoLimits& limits) {
  if (indices.empty()) return {};
  return Reader(path, indices, on_frame, limits).run();
}

}  // namespace llava::film_file
