#pragma once
#include <string>
#include <vector>

#include "base/json.h"

namespace llava {

/// One piece of a message. Media hold a reference (path, URL or index), never pixels.
struct Part {
  enum class Kind { kText, kImage, kVideo };
  Kind kind = Kind::kText;
  std::string text;                        ///< text, or the media reference (may be empty)
  bool operator==(const Part&) const = default;
};

struct Message {
  std::string role;                        ///< "system", "user", "assistant"
  std::vector<Part> parts;
  std::string text() const;                ///< the text parts joined
  bool operator==(const Message&) const = default;
};

/// The only user-facing message type: the command line, LLaVA JSON and the OpenAI schema all become this.
struct Conversation {
  std::vector<Message> messages;
  std::size_t num_images() const;
  bool operator==(const Conversation&) const = default;
};

/// OpenAI-style message list: [{"role", "content": text | [{"type":"text","text"}, {"type":"image"}, {"type":"image_url",…}, {"type":"video"}]}].
Conversation conversation_from_messages(const Json& messages);

/// One LLaVA record's `conversations` ([{"from": human|gpt|system, "value": text with <image>}]); the text is split at each
/// <image>/<video>. Errors name the record: unknown roles, roles not alternating, placeholders != number of images.
Conversation conversation_from_llava(const Json& record);

}  // namespace llava
