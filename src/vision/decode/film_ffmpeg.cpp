extern "C" {
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>
}

#include <algorithm>
#include <memory>
#include <string>

#include "base/error.h"
#include "vision/decode/codec.h"
#include "vision/decode/film_container.h"
#include "vision/decode/frame_folder.h"

namespace llava::film_file {

namespace {

using Frame = std::unique_ptr<AVFrame, Release<av_frame_free>>;
struct FreeScaler {
  void operator()(SwsContext* p) const { sws_freeContext(p); }
};
using Scaler = std::unique_ptr<SwsContext, FreeScaler>;

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

std::int64_t time_of(const AVPacket& packet) { return packet.pts != AV_NOPTS_VALUE ? packet.pts : packet.dts; }

/// The times of all frames, ascending.
std::vector<std::int64_t> packet_times(const fs::path& path, const VideoLimits& limits) {
  Film film(path, limits);
  const Packet packet(av_packet_alloc());
  if (!packet) fail(ErrorKind::kResource, "{}: no memory for a packet", film.path());
  std::vector<std::int64_t> times;
  while (film.next(packet.get()) >= 0 && static_cast<std::int64_t>(times.size()) < limits.max_frames)
    if ((packet->flags & AV_PKT_FLAG_DISCARD) == 0)
      times.push_back(time_of(*packet));
  std::sort(times.begin(), times.end());
  return times;
}

/// One pass over the film that hands out the wanted frames.
class Reader {
 public:
  Reader(const fs::path& path, const std::vector<std::int64_t>& indices,
         const std::function<bool(std::size_t, Image)>& on_frame, const VideoLimits& limits)
      : limits_(limits),
        film_(path, limits),
        decoder_(film_.open_decoder()),
        convert_(film_.orientation(), limits_),
        indices_(indices),
        on_frame_(on_frame),
        packet_(av_packet_alloc()),
        frame_(av_frame_alloc()) {
    if (!packet_ || !frame_) fail(ErrorKind::kResource, "{}: no memory for a frame", film_.path());
  }

  FramesRead run() {
    int code = 0;
    while (!done() && (code = film_.next(packet_.get())) >= 0) {
      if (avcodec_send_packet(decoder_.get(), packet_.get()) < 0) {
        ++damaged_;
        note_damage();
      }
      drain();
    }
    if (!done()) {
      avcodec_send_packet(decoder_.get(), nullptr);
      drain();
    }
    if (!stopped_) result_.problem = describe(code);
    return result_;
  }

 private:
  bool done() const { return stopped_ || next_ == indices_.size(); }

  /// From here on the frames' times tell which they are: how many a damaged part swallows is the decoder's secret.
  void note_damage() {
    if (times_.empty()) times_ = packet_times(film_.path(), limits_);
  }

  /// Which of the film's frames this is. Behind damage one may come later than its successors.
  std::int64_t number_of(const AVFrame& frame) const {
    const auto found = std::lower_bound(times_.begin(), times_.end(), frame.best_effort_timestamp);
    const bool known = found != times_.end() && *found == frame.best_effort_timestamp;
    return known ? found - times_.begin() : position_;
  }

  void drain() {
    while (!done() && !film_.watch().over()) {
      const int code = avcodec_receive_frame(decoder_.get(), frame_.get());
      if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
      if (code < 0) {
        ++damaged_;
        return note_damage();
      }
      if (frame_->decode_error_flags != 0 || (frame_->flags & AV_FRAME_FLAG_CORRUPT) != 0) {
        ++patched_;
        note_damage();
      }
      if (const std::int64_t number = number_of(*frame_); number >= position_) {
        for (; !done() && indices_[next_] < number; ++next_) missing_.push_back(indices_[next_]);
        for (; !done() && indices_[next_] == number; ++next_) hand_out();
        position_ = number + 1;
      }
      av_frame_unref(frame_.get());
    }
  }

  void hand_out() {
    Image image = with_context(film_.path(), [&] { return convert_(*frame_); });
    if (film_.watch().pause([&] { return on_frame_(next_, std::move(image)); })) {
      ++result_.delivered;
    } else {
      stopped_ = true;
    }
  }

  /// Empty if every frame came whole.
  std::string describe(int code) const {
    if (missing_.empty() && done() && damaged_ == 0 && patched_ == 0) return "";
    std::string text = film_.path() + ":";
    if (!missing_.empty()) text += fmt::format(" frames that cannot be decoded: {};", short_list(missing_));
    if (!done() && film_.watch().over()) {
      text += fmt::format(" reading took more than {} seconds: ends at frame {}, {} was wanted ({});", limits_.max_seconds,
                          position_, indices_[next_], kTimeHint);
    } else if (!done()) {
      text += fmt::format(" the film ends after {} frames; frame {} was wanted;", position_, indices_[next_]);
      if (code < 0 && code != AVERROR_EOF) text += fmt::format(" {};", reason(code));
    }
    return text + fmt::format(" {} damaged packets, {} damaged frames shown", damaged_, patched_);
  }

  VideoLimits limits_;
  Film film_;
  Decoder decoder_;
  Converter convert_;
  const std::vector<std::int64_t>& indices_;
  const std::function<bool(std::size_t, Image)>& on_frame_;
  Packet packet_;
  Frame frame_;
  FramesRead result_;
  std::size_t next_ = 0;
  std::vector<std::int64_t> missing_;
  std::vector<std::int64_t> times_;         // of the film's frames, once there is damage
  std::int64_t position_ = 0;               // of the next frame
  std::int64_t damaged_ = 0, patched_ = 0;  // packets; frames that were decoded all the same
  bool stopped_ = false;
};

/// What a pass over a film's packets finds.
struct PacketCount {
  std::int64_t packets = 0, torn = 0;
  double end = 0;  // of the last picture, seconds
  int code = 0;    // that ended it
};

PacketCount count_packets(Film& film, const VideoLimits& limits, std::int64_t& frames) {
  const Packet packet(av_packet_alloc());
  if (!packet) fail(ErrorKind::kResource, "{}: no memory for a packet", film.path());
  const double unit = av_q2d(film.stream()->time_base);
  PacketCount count;
  while ((count.code = film.next(packet.get())) >= 0) {
    ++count.packets;
    if ((packet->flags & AV_PKT_FLAG_CORRUPT) != 0) ++count.torn;
    if (const std::int64_t time = time_of(*packet); time != AV_NOPTS_VALUE)
      count.end = std::max(count.end, unit * (static_cast<double>(time) + static_cast<double>(packet->duration)));
    if ((packet->flags & AV_PKT_FLAG_DISCARD) == 0 && ++frames > limits.max_frames)
      throw Error(ErrorKind::kInput, fmt::format("{}: more than {} frames", film.path(), limits.max_frames),
                  kFramesHint);
  }
  if (film.watch().over()) film.fail_for_time("counting its frames");
  return count;
}

/// What the file promised and does not hold; empty if nothing is missing.
std::string shortfall(const Film& film, std::int64_t promised, const PacketCount& count) {
  const double seconds = promised > 0 ? 0 : film.promised_seconds();
  const bool early = count.end < seconds - std::max(0.5, seconds / 10);  // sound may be a little longer
  if (count.packets >= promised && count.torn == 0 && count.code == AVERROR_EOF && !early) return "";
  std::string text = fmt::format("{}: the film is cut off or damaged: {} frames are there", film.path(), count.packets);
  if (count.packets < promised) text += fmt::format(", its header says {}", promised);
  if (early) text += fmt::format(", they end after {:.2f} of {:.2f} seconds", count.end, seconds);
  if (count.torn > 0) text += fmt::format(", {} of them incomplete", count.torn);
  if (count.code != AVERROR_EOF) text += ": " + reason(count.code);
  return text;
}

}  // namespace

VideoInfo probe(const fs::path& path, const VideoLimits& limits) {
  Film film(path, limits);
  VideoInfo info;
  const std::int64_t promised = film.promised_packets();  // before the index grows
  const PacketCount count = count_packets(film, limits, info.frames);
  info.problem = shortfall(film, promised, count);
  if (info.frames == 0 && !info.problem.empty()) fail(ErrorKind::kFormat, "{}", info.problem);
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
