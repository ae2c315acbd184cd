#pragma once
#include <string>
#include <utility>
#include <vector>

#include "text/chat_format.h"

namespace llava {

/// Collects segments; neighbours that differ in nothing but their text become one.
class SegmentBuilder {
 public:
  void add(Segment segment) {
    if (segment.text.empty() && !segment.is_media()) return;
    if (!segments_.empty() && !segment.is_media()) {
      Segment& last = segments_.back();
      if (!last.is_media() && last.trained == segment.trained && last.user_text == segment.user_text &&
          last.turn == segment.turn) {
        last.text += segment.text;
        return;
      }
    }
    segments_.push_back(std::move(segment));
  }
  void literal(std::string text, int turn, bool trained = false) {
    add({Segment::Kind::kText, std::move(text), trained, false, 0, turn});
  }
  /// The parts of a message, media as <image> and <video>.
  void message(const Message& message, int turn, bool trained) {
    for (const Part& part : message.parts) {
      if (part.is_media())
        media(part.kind, turn);
      else
        add({Segment::Kind::kText, part.text, trained, true, 0, turn});
    }
  }
  void media(Part::Kind kind, int turn) {
    const bool is_image = kind == Part::Kind::kImage;
    add({is_image ? Segment::Kind::kImage : Segment::Kind::kVideo, is_image ? "<image>" : "<video>", false,
         false, num_media_++, turn});
  }
  std::vector<Segment> take() { return std::move(segments_); }

 private:
  std::vector<Segment> segments_;
  std::size_t num_media_ = 0;
};

}  // namespace llava
