#pragma once
extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
}

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "vision/decode/codec.h"
#include "vision/video.h"

// FFmpeg's libraries on hostile files: containers of a fixed list, local files only, sizes checked before
// anything is allocated for them, packets counted and time measured wherever the file decides how often
// something is done.
namespace llava::film_file {

namespace fs = std::filesystem;

inline constexpr const char* kContainers =
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
using Packet = std::unique_ptr<AVPacket, Release<av_packet_free>>;
inline std::string reason(int code) {
  char text[AV_ERROR_MAX_STRING_SIZE] = {};
  av_strerror(code, text, sizeof text);
  return text;
}

/// What one pass over a film may take.
class Stopwatch {
 public:
  explicit Stopwatch(double seconds) : seconds_(seconds) {}
  bool over() const { return seconds_ > 0 && Clock::now() - start_ > std::chrono::duration<double>(seconds_); }
  /// Runs `body`, whose time does not count: it is the caller's, not the film's.
  template <class Body>
  auto pause(Body&& body) {
    const auto begin = Clock::now();
    const auto result = body();
    start_ += Clock::now() - begin;
    return result;
  }
  /// Asked by FFmpeg before each read.
  static int interrupts(void* self) { return static_cast<const Stopwatch*>(self)->over() ? 1 : 0; }

 private:
  using Clock = std::chrono::steady_clock;
  double seconds_;
  Clock::time_point start_ = Clock::now();
};

inline constexpr const char* kTimeHint = "--max-video-seconds N allows more; 0: any time";

/// An open film: the container and its best video stream.
class Film {
 public:
  Film(const fs::path& path, const VideoLimits& limits)
      : path_(path.string()), limits_(limits), watch_(limits.max_seconds) {
    av_log_set_level(AV_LOG_QUIET);
    bound_allocations(limits_.max_frames, sizeof(AVIndexEntry));
    open();
    bound_allocations(limits_.image.max_pixels, 8);  // 16 bits a channel
    find_streams();
    stream_ = av_find_best_stream(container_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    if (stream_ < 0) fail(ErrorKind::kInput, "{}: the file has no video stream", path_);
    for (unsigned i = 0; i < container_->nb_streams; ++i)
      if (static_cast<int>(i) != stream_) container_->streams[i]->discard = AVDISCARD_ALL;
    with_context(path_, [&] {
      const auto at = static_cast<std::size_t>(stream_);  // FFmpeg forgets a size that is beyond it
      if (at < declared_.size() && declared_[at].width > 0) codec::check_size(declared_[at], limits_.image);
      if (stream()->codecpar->width <= 0)
        fail(ErrorKind::kFormat, "no picture could be decoded that tells their size");
      codec::check_size({stream()->codecpar->width, stream()->codecpar->height}, limits_.image);
    });
  }
  Film(const Film&) = delete;  // the container points to the watch
  Film& operator=(const Film&) = delete;

  AVStream* stream() const { return container_->streams[stream_]; }
  const std::string& path() const { return path_; }
  Stopwatch& watch() { return watch_; }
  const Stopwatch& watch() const { return watch_; }

  /// The next packet of the stream; 0, AVERROR_EOF or another error, AVERROR_EXIT when the time is over.
  int next(AVPacket* packet) const {
    for (;;) {
      av_packet_unref(packet);
      if (watch_.over()) return AVERROR_EXIT;
      const int code = av_read_frame(container_.get(), packet);
      if (code < 0 || packet->stream_index == stream_) return code;
    }
  }

  /// Packets that the file's headers tell of, 0 where they do not. MP4's index is asked, as an edit list hides
  /// some of the frames that its header counts.
  std::int64_t promised_packets() const {
    const bool indexed = std::string_view(container_->iformat->name).starts_with("mov");
    return indexed ? avformat_index_get_entries_count(stream()) : stream()->nb_frames;
  }

  /// Seconds that a container's header tells of where it does not count packets (Matroska, FLV); else 0.
  double promised_seconds() const {
    const bool told = container_->duration_estimation_method == AVFMT_DURATION_FROM_STREAM;
    return told && container_->duration > 0 ? static_cast<double>(container_->duration) / AV_TIME_BASE : 0;
  }

  [[noreturn]] void fail_for_time(const char* doing) const {
    throw Error(ErrorKind::kInput, fmt::format("{}: {} took more than {} seconds", path_, doing, limits_.max_seconds),
                kTimeHint);
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
  static constexpr std::int64_t kTables = std::int64_t{64} << 20, kLargest = std::int64_t{1} << 40;

  /// No single allocation of FFmpeg's may be larger, of the whole process: a file of 4 KB can claim a table of
  /// gigabytes.
  static void bound_allocations(std::int64_t count, std::int64_t bytes) {
    av_max_alloc(static_cast<std::size_t>(kTables + bytes * std::min(count, kLargest)));
  }

  void open() {
    AVFormatContext* raw = avformat_alloc_context();
    if (raw == nullptr) fail(ErrorKind::kResource, "{}: no memory for the film", path_);
    raw->interrupt_callback = {Stopwatch::interrupts, &watch_};
    AVDictionary* options = nullptr;
    av_dict_set(&options, "protocol_whitelist", "file", 0);
    av_dict_set(&options, "format_whitelist", kContainers, 0);
    const std::string url = "file:" + path_;
    const int opened = avformat_open_input(&raw, url.c_str(), nullptr, &options);  // frees `raw` if it fails
    av_dict_free(&options);
    if (opened < 0 && watch_.over()) fail_for_time("opening it");
    if (opened == AVERROR(EINVAL))  // the whitelist's answer
      fail(ErrorKind::kFormat, "{}: not a film that can be read: it is none of {}", path_, kContainers);
    if (opened < 0) fail(ErrorKind::kFormat, "{}: not a film that can be read: {}", path_, reason(opened));
    container_.reset(raw);
  }

  /// FFmpeg decodes first frames here to learn what headers do not say. Their size is left to bound_allocations:
  /// decoders that were told max_pixels would refuse larger ones without saying how large they are.
  void find_streams() {
    for (unsigned i = 0; i < container_->nb_streams; ++i)
      declared_.push_back({container_->streams[i]->codecpar->width, container_->streams[i]->codecpar->height});
    const int found = avformat_find_stream_info(container_.get(), nullptr);
    if (watch_.over()) fail_for_time("looking for its streams");
    if (found < 0) fail(ErrorKind::kFormat, "{}: {}", path_, reason(found));
  }

  std::string path_;
  VideoLimits limits_;
  Stopwatch watch_;
  Container container_;
  std::vector<ImageSize> declared_;  // of the streams, by the container's header
  int stream_ = -1;
};

}  // namespace llava::film_file
