#include "text/conversation.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/jinja_value.h"  // strip

namespace llava {

std::string Message::text() const {
  std::string joined;
  for (const Part& part : parts)
    if (!part.is_media()) joined += part.text;
  return joined;
}

std::size_t Message::num_media() const {
  return static_cast<std::size_t>(
      std::count_if(parts.begin(), parts.end(), [](const Part& p) { return p.is_media(); }));
}

std::size_t Conversation::num_media() const {
  std::size_t n = 0;
  for (const Message& message : messages) n += message.num_media();
  return n;
}

std::size_t Conversation::num_images() const {
  std::size_t n = 0;
  for (const Message& message : messages)
    for (const Part& part : message.parts) n += part.kind == Part::Kind::kImage;
  return n;
}

namespace {

constexpr std::size_t kMaxMessages = 10'000;

/// The reference of a media part: {"image": x}, {"path": x}, {"url": x} or {"image_url": x | {"url": x}}.
std::string media_reference(const Json& part, const std::string& where) {
  for (const char* key : {"image", "video", "path", "url", "image_url", "video_url"}) {
    const auto it = part.find(key);
    if (it == part.end() || it->is_null()) continue;
    if (it->is_string()) return it->get<std::string>();
    if (it->is_object()) return json_get_or<std::string>(*it, "url", "", where);
    fail(ErrorKind::kInput, "{}: \"{}\" must be a text", where, key);
  }
  return "";
}

Part read_part(const Json& json, const std::string& where) {
  if (json.is_string()) return {Part::Kind::kText, json.get<std::string>()};
  if (!json.is_object()) fail(ErrorKind::kInput, "{}: a part of the content must be an object", where);
  const auto type = json_get<std::string>(json, "type", where);
  if (type == "text" || type == "input_text")
    return {Part::Kind::kText, json_get<std::string>(json, "text", where)};
  if (type == "image" || type == "image_url" || type == "input_image")
    return {Part::Kind::kImage, media_reference(json, where)};
  if (type == "video" || type == "video_url") return {Part::Kind::kVideo, media_reference(json, where)};
  fail(ErrorKind::kInput, "{}: content of type \"{}\" (known: text, image, image_url, video)", where,
       type.substr(0, 40));
}

std::string read_role(const Json& json, const std::string& where) {
  const auto role = json_get<std::string>(json, "role", where);
  if (role == "developer") return "system";
  for (const char* known : {"system", "user", "assistant"})
    if (role == known) return role;
  fail(ErrorKind::kInput, "{}: role \"{}\" (known: system, user, assistant)", where, role.substr(0, 40));
}

}  // namespace

Conversation conversation_from_messages(const Json& messages) {
  if (!messages.is_array() || messages.empty())
    fail(ErrorKind::kInput, "messages: expected a list of messages");
  if (messages.size() > kMaxMessages)
    fail(ErrorKind::kInput, "messages: {}, more than {}", messages.size(), kMaxMessages);
  Conversation conversation;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string where = fmt::format("messages[{}]", i);
    if (!messages[i].is_object())
      fail(ErrorKind::kInput, "{}: expected an object with \"role\" and \"content\"", where);
    Message message{read_role(messages[i], where), {}};
    const auto content = messages[i].find("content");
    if (content == messages[i].end() || content->is_null())
      fail(ErrorKind::kInput, "{}: \"content\" is missing", where);
    if (content->is_string())
      message.parts.push_back({Part::Kind::kText, content->get<std::string>()});
    else if (content->is_array())
      for (const Json& part : *content) message.parts.push_back(read_part(part, where));
    else
      fail(ErrorKind::kInput, "{}: \"content\" must be a text or a list", where);
    conversation.messages.push_back(std::move(message));
  }
  return conversation;
}

namespace {

/// Text split at each <image> and <video>.
std::vector<Part> split_media(std::string_view text) {
  static constexpr std::string_view kImage = "<image>", kVideo = "<video>";
  std::vector<Part> parts;
  while (true) {
    const std::size_t image = text.find(kImage), video = text.find(kVideo), at = std::min(image, video);
    if (at > 0 && !text.empty()) parts.push_back({Part::Kind::kText, std::string(text.substr(0, at))});
    if (at == std::string_view::npos) return parts;
    parts.push_back({image < video ? Part::Kind::kImage : Part::Kind::kVideo, ""});
    text.remove_prefix(at + kImage.size());
  }
}

/// The references of `keys` (a text or a list of texts) in a record.
std::vector<std::string> references(const Json& record, const std::array<const char*, 2>& keys,
                                    const std::string& where) {
  std::vector<std::string> found;
  for (const char* key : keys) {
    const auto it = record.find(key);
    if (it == record.end() || it->is_null()) continue;
    const Json list = it->is_array() ? *it : Json::array({*it});
    for (const Json& item : list) {
      if (!item.is_string())
        fail(ErrorKind::kInput, "{}: \"{}\" must be a text or a list of texts", where, key);
      found.push_back(item.get<std::string>());
    }
  }
  return found;
}

std::string record_name(const Json& record) {
  const auto id = record.find("id");
  if (id == record.end()) return "record";
  return fmt::format("record {}", (id->is_string() ? id->get<std::string>() : id->dump()).substr(0, 80));
}

Message read_turn(const Json& turn, const std::string& where) {
  const bool from_value = turn.is_object() && turn.contains("from");
  const auto who = json_get<std::string>(turn, from_value ? "from" : "role", where);
  const auto text = json_get<std::string>(turn, from_value ? "value" : "content", where);
  Message message;
  if (who == "human" || who == "user")
    message.role = "user";
  else if (who == "gpt" || who == "assistant")
    message.role = "assistant";
  else if (who == "system")
    message.role = "system";
  else
    fail(ErrorKind::kInput, "{}: a turn from \"{}\" (known: human, gpt, system)", where, who.substr(0, 40));
  message.parts = split_media(text);
  return message;
}

void check_alternation(const Conversation& conversation, const std::string& where) {
  const Message* last = nullptr;
  for (const Message& message : conversation.messages) {
    if (message.role == "system" && last != nullptr)
      fail(ErrorKind::kInput, "{}: a system turn that is not the first", where);
    if (last != nullptr && last->role == message.role)
      fail(ErrorKind::kInput, "{}: two turns of the {} in a row", where, message.role);
    if (message.role != "system") last = &message;
  }
  if (last == nullptr) fail(ErrorKind::kInput, "{}: no turn of a user", where);
}

/// Gives each placeholder its reference.
void assign_references(Conversation& conversation, Part::Kind kind, const std::vector<std::string>& found,
                       const std::string& where) {
  std::size_t n = 0;
  for (Message& message : conversation.messages)
    for (Part& part : message.parts) {
      if (part.kind != kind) continue;
      if (n < found.size()) part.text = found[n];
      ++n;
    }
  if (n != found.size()) {
    const char* name = kind == Part::Kind::kImage ? "image" : "video";
    fail(ErrorKind::kInput, "{}: the text has {} <{}>, the record {} {}s", where, n, name, found.size(),
         name);
  }
}

}  // namespace

Conversation conversation_from_llava(const Json& record, const RecordOptions& options) {
  if (!record.is_object()) fail(ErrorKind::kInput, "record: expected an object with \"conversations\"");
  const std::string where = record_name(record);
  const auto turns = record.find("conversations");
  if (turns == record.end() || !turns->is_array() || turns->empty())
    fail(ErrorKind::kInput, "{}: \"conversations\" must be a list of turns", where);
  if (turns->size() > kMaxMessages)
    fail(ErrorKind::kInput, "{}: {} turns, more than {}", where, turns->size(), kMaxMessages);
  Conversation conversation;
  conversation.inline_media = true;
  bool asked = false;
  for (const Json& turn : *turns) {
    Message message = read_turn(turn, where);
    asked = asked || message.role == "user";
    if (options.drop_leading_answers && message.role == "assistant" && !asked) continue;
    conversation.messages.push_back(std::move(message));
  }
  check_alternation(conversation, where);
  assign_references(conversation, Part::Kind::kImage, references(record, {"image", "images"}, where),
                    where);
  assign_references(conversation, Part::Kind::kVideo, references(record, {"video", "videos"}, where),
                    where);
  place_images(conversation, options.placement);
  return conversation;
}

namespace {

std::string stripped(const std::string& text) {
  return std::string(jinja::strip(text, jinja::Side::kBoth));
}

/// `first`, a line break and the stripped text.
std::vector<Part> media_first(Part first, const std::string& text) {
  std::vector<Part> parts = {std::move(first)};
  if (!text.empty()) parts.push_back({Part::Kind::kText, "\n" + text});
  return parts;
}

}  // namespace

void place_images(Conversation& conversation, ImagePlacement placement) {
  if (placement == ImagePlacement::kInline) return;
  for (Message& message : conversation.messages) {
    const auto image = std::find_if(message.parts.begin(), message.parts.end(),
                                    [](const Part& p) { return p.kind == Part::Kind::kImage; });
    if (image == message.parts.end() ||
        (message.num_media() > 1 && placement == ImagePlacement::kSingleFirst))
      continue;
    message.parts = media_first(Part(*image), stripped(message.text()));
  }
}

Message with_inline_media(const Message& message) {
  const std::size_t num_media = message.num_media();
  if (num_media == 0) return message;
  Message out{message.role, {}};
  if (num_media == 1) {
    const auto media = std::find_if(message.parts.begin(), message.parts.end(),
                                    [](const Part& p) { return p.is_media(); });
    out.parts = media_first(*media, message.text());
    return out;
  }
  for (const Part& part : message.parts) {
    const bool after_media = !out.parts.empty() && out.parts.back().is_media();
    const bool after_text = !out.parts.empty() && !after_media;
    const bool needs_break = after_media
                                 ? part.is_media() || !part.text.starts_with('\n')
                                 : after_text && part.is_media() && !out.parts.back().text.ends_with('\n');
    if (needs_break) out.parts.push_back({Part::Kind::kText, "\n"});
    out.parts.push_back(part);
  }
  return out;
}

Message with_separate_media(const Message& message) {
  Message out{message.role, {}};
  for (std::size_t i = 0; i < message.parts.size(); ++i) {
    Part part = message.parts[i];
    if (!part.is_media()) {
      if (i > 0 && message.parts[i - 1].is_media() && part.text.starts_with('\n')) part.text.erase(0, 1);
      if (i + 1 < message.parts.size() && message.parts[i + 1].is_media() && part.text.ends_with('\n'))
        part.text.pop_back();
      if (part.text.empty()) continue;
    }
    out.parts.push_back(std::move(part));
  }
  return out;
}

}  // namespace llava
