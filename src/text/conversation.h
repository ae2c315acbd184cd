#pragma once
#include <string>
#include <vector>

#include "base/json.h"

namespace llava {

/// One piece of a message. Media hold a reference (path, URL or index), never pixels.
struct Part {
  enum class Kind { kText, kImage, kVideo };
  Kind kind = Kind::kText;
  std::string text;  ///< text, or the media reference (may be empty)
  bool is_media() const { return kind != Kind::kText; }
  bool operator==(const Part&) const = default;
};

struct Message {
  std::string role;  ///< "system", "user", "assistant"
  std::vector<Part> parts;
  std::string text() const;  ///< the text parts joined
  std::size_t num_media() const;
  bool operator==(const Message&) const = default;
};

/// The only user-facing message type: the command line, LLaVA JSON and the OpenAI schema all become this.
struct Conversation {
  std::vector<Message> messages;
  /// True for LLaVA records: the texts hold what was written around <image>, line breaks included. False
  /// for OpenAI messages, whose renderer separates media from text.
  bool inline_media = false;
  std::size_t num_images() const;
  std::size_t num_media() const;  ///< images and videos
  bool operator==(const Conversation&) const = default;
};

/// OpenAI-style message list: [{"role", "content": text | [{"type":"text","text"}, {"type":"image"},
/// {"type":"image_url",…},
/// {"type":"video"}]}]. A reference is taken from "image", "path", "url" or "image_url" (text or {"url"});
/// role "developer" is "system". Error{kInput} names the message.
Conversation conversation_from_messages(const Json& messages);

/// Where the image of a LLaVA record's message stands.
enum class ImagePlacement {
  kInline,       ///< as written
  kSingleFirst,  ///< one image: first, then a line break and the stripped text (LLaVA, LLaVA-NeXT);
                 ///< several: as written
  kAllFirst,  ///< LLaVA 1.5's training code: however many <image> a message has, one stands first and the
              ///< others are lost
};

/// Moves the images of inline messages; see ImagePlacement.
void place_images(Conversation& conversation, ImagePlacement placement);

struct RecordOptions {
  ImagePlacement placement = ImagePlacement::kSingleFirst;
  bool drop_leading_answers = true;  ///< as upstream: answers before the first question are left out
};

/// One LLaVA record's `conversations` ([{"from": human|gpt|system, "value": text with <image>}], or
/// role/content pairs); the text is split at each <image>/<video>, references come from "image"/"images"
/// and "video"/"videos". Errors (kInput) name the record: unknown roles, roles not alternating,
/// placeholders != number of images.
Conversation conversation_from_llava(const Json& record, const RecordOptions& options = {});

/// The message with line breaks between media and text: a lone image first, as LLaVA was trained.
Message with_inline_media(const Message& message);
/// The message without the line break that separates text from media beside it.
Message with_separate_media(const Message& message);

}  // namespace llava
