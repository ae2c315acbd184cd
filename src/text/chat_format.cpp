#include "text/chat_format.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "text/chat_format_table.h"
#include "text/jinja_value.h"  // strip
#include "text/segment_builder.h"

namespace llava {

std::string ChatFormat::render_text(const Conversation& conversation, bool add_generation_prompt) const {
  std::string text;
  for (const Segment& segment : render(conversation, add_generation_prompt)) text += segment.text;
  return text;
}

namespace {

/// A conversation as the named formats see it: the system's text apart, media inline.
struct Turns {
  std::string system;
  int system_turn = -1;
  struct Turn {
    Message message;
    int index;
    bool is_answer;
  };
  std::vector<Turn> turns;
};

void strip_in_place(std::string& text, jinja::Side side) { text = std::string(jinja::strip(text, side)); }

Message stripped(Message message) {
  const auto strip_from = [](auto begin, auto end, jinja::Side side) {
    for (auto part = begin; part != end && !part->is_media(); ++part) {
      strip_in_place(part->text, side);
      if (!part->text.empty()) return;
    }
  };
  strip_from(message.parts.begin(), message.parts.end(), jinja::Side::kLeft);
  strip_from(message.parts.rbegin(), message.parts.rend(), jinja::Side::kRight);
  return message;
}

class Named : public ChatFormat {
 public:
  explicit Named(const NamedFormat& format) : format_(format) {}
  const std::string& name() const override { return format_.names.front(); }
  const std::vector<std::string>& stop_strings() const override { return format_.stop; }
  UpstreamMask upstream_mask() const override { return format_.upstream; }

  std::vector<Segment> render(const Conversation& conversation, bool add_generation_prompt) const override {
    const Turns turns = split(conversation);
    const int next = static_cast<int>(conversation.messages.size());
    SegmentBuilder out;
    switch (format_.style) {
      case ChatStyle::kSingle:
      case ChatStyle::kTwo:
        render_roles(turns, add_generation_prompt ? next : -1, out);
        break;
      case ChatStyle::kHeaders:
        render_headers(turns, add_generation_prompt ? next : -1, out);
        break;
      case ChatStyle::kLlama2:
        render_llama2(turns, out);
        break;
      case ChatStyle::kPlain:
        render_plain(turns, out);
        break;
    }
    return out.take();
  }

  std::vector<Segment> render_training(const Conversation& conversation) const override {
    if (format_.style != ChatStyle::kSingle && format_.style != ChatStyle::kPlain)
      return render(conversation, false);
    const Turns turns = split(conversation);
    SegmentBuilder out;
    if (format_.style == ChatStyle::kSingle)
      render_single_training(turns, out);
    else
      render_plain_training(turns, out);
    return out.take();
  }

 private:
  Turns split(const Conversation& conversation) const {
    Turns out{format_.system, -1, {}};
    for (std::size_t i = 0; i < conversation.messages.size(); ++i) {
      const Message& message = conversation.messages[i];
      const int index = static_cast<int>(i);
      if (message.role == "system") {
        if (i != 0) fail(ErrorKind::kInput, "{}: the system message must be the first", name());
        if (message.num_media() > 0)
          fail(ErrorKind::kInput, "{}: the system message cannot hold an image", name());
        out.system = message.text();
        if (format_.strips) strip_in_place(out.system, jinja::Side::kBoth);
        out.system_turn = 0;
        continue;
      }
      const bool is_answer = message.role == "assistant";
      if (!is_answer && message.role != "user")
        fail(ErrorKind::kInput, "{}: no role \"{}\"", name(), message.role);
      Message shown = conversation.inline_media ? message : with_inline_media(message);
      if (format_.strips) shown = stripped(std::move(shown));
      out.turns.push_back({std::move(shown), index, is_answer});
    }
    return out;
  }

  void add_system(const Turns& turns, SegmentBuilder& out) const {
    out.add({Segment::Kind::kText, turns.system, false, turns.system_turn >= 0, 0, turns.system_turn});
  }

  /// SINGLE and TWO: "role: text" and a separator; the separators of TWO follow the position, as upstream.
  void render_roles(const Turns& turns, int next, SegmentBuilder& out) const {
    if (!turns.system.empty()) {
      add_system(turns, out);
      out.literal(format_.sep, turns.system_turn);
    }
    for (const auto& [question, answer] : format_.examples)
      out.literal(fmt::format("{}: {}{}{}: {}{}", format_.user, question, format_.sep, format_.assistant,
                              answer, format_.end),
                  -1);
    std::size_t position = 0;
    for (const Turns::Turn& turn : turns.turns) {
      const std::string& sep = position++ % 2 == 0 ? format_.sep : format_.end;
      out.literal((turn.is_answer ? format_.assistant : format_.user) + ":", turn.index);
      out.literal(" ", turn.index, turn.is_answer);
      out.message(turn.message, turn.index, turn.is_answer);
      out.literal(sep, turn.index, turn.is_answer && sep == format_.end);
    }
    if (next >= 0) out.literal(format_.assistant + ":", next);
  }

  void render_headers(const Turns& turns, int next, SegmentBuilder& out) const {
    out.literal(format_.prefix, -1);
    if (!turns.system.empty()) {
      if (format_.system_header.empty())
        fail(ErrorKind::kInput, "{}: the format has no system message", name());
      out.literal(format_.system_header, turns.system_turn);
      add_system(turns, out);
      out.literal(format_.end + format_.newline, turns.system_turn);
    }
    for (const Turns::Turn& turn : turns.turns) {
      out.literal(turn.is_answer ? format_.assistant : format_.user, turn.index);
      out.message(turn.message, turn.index, turn.is_answer);
      out.literal(format_.end, turn.index, turn.is_answer);
      out.literal(format_.newline, turn.index);
    }
    if (next >= 0) out.literal(format_.assistant, next);
  }

  void render_llama2(const Turns& turns, SegmentBuilder& out) const {
    bool first = true;
    for (const Turns::Turn& turn : turns.turns) {
      if (first && turn.is_answer)
        fail(ErrorKind::kInput, "{}: the first message must be the user's", name());
      if (turn.is_answer) {
        out.literal(" ", turn.index, true);
        out.message(turn.message, turn.index, true);
        out.literal(" " + format_.end, turn.index, true);
      } else {
        out.literal(first ? "[INST] " : format_.sep + "[INST] ", turn.index);
        if (first && !turns.system.empty()) {
          out.literal("<<SYS>>\n", turn.index);
          add_system(turns, out);
          out.literal("\n<</SYS>>\n\n", turn.index);
        }
        out.message(turn.message, turn.index, false);
        out.literal(" [/INST]", turn.index);
      }
      first = false;
    }
  }

  void render_plain(const Turns& turns, SegmentBuilder& out) const {
    if (turns.system_turn >= 0) fail(ErrorKind::kInput, "{}: the format has no system message", name());
    for (const Turns::Turn& turn : turns.turns) {
      out.message(turn.message, turn.index, turn.is_answer);
      out.literal(turn.is_answer ? format_.end : format_.sep, turn.index, turn.is_answer);
    }
  }

  /// Stage 1: the image and its caption; the question's words are dropped.
  void render_plain_training(const Turns& turns, SegmentBuilder& out) const {
    for (const Turns::Turn& turn : turns.turns) {
      if (turn.is_answer) {
        out.message(turn.message, turn.index, true);
        out.literal(format_.end, turn.index, true);
      }
      for (const Part& part : turn.message.parts)
        if (part.is_media() && !turn.is_answer) out.media(part.kind, turn.index);
    }
  }

  /// Version 0: "### Human: q\n### Assistant: a\n### ".
  void render_single_training(const Turns& turns, SegmentBuilder& out) const {
    add_system(turns, out);
    out.literal("\n\n", turns.system_turn);
    bool after_answer = false;
    for (const Turns::Turn& turn : turns.turns) {
      out.literal("###", turn.index, after_answer);  // ends the answer before it
      out.literal(fmt::format(" {}:", turn.is_answer ? format_.assistant : format_.user), turn.index);
      out.literal(" ", turn.index, turn.is_answer);
      out.message(turn.message, turn.index, turn.is_answer);
      out.literal("\n", turn.index, turn.is_answer);
      after_answer = turn.is_answer;
    }
    out.literal("###", -1, after_answer);
    out.literal(" ", -1);
  }

  const NamedFormat& format_;
};

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = std::exchange(row[j + 1], std::min({replaced, row[j] + 1, row[j + 1] + 1}));
    }
  }
  return row.back();
}

}  // namespace

std::shared_ptr<const ChatFormat> find_chat_format(std::string_view name) {
  for (const NamedFormat& format : named_formats())
    if (std::find(format.names.begin(), format.names.end(), name) != format.names.end())
      return std::make_shared<const Named>(format);
  const std::vector<std::string> names = chat_format_names();
  const std::string_view shown = name.substr(0, 60);
  const auto nearest =
      std::min_element(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
        return edit_distance(shown, a) < edit_distance(shown, b);
      });
  throw Error(ErrorKind::kUsage, fmt::format("there is no chat format \"{}\"", shown),
              fmt::format("did you mean \"{}\"?", *nearest));
}

std::vector<std::string> chat_format_names() {
  std::vector<std::string> names;
  for (const NamedFormat& format : named_formats())
    names.insert(names.end(), format.names.begin(), format.names.end());
  std::sort(names.begin(), names.end());
  return names;
}

std::string chat_format_name_for_model(std::string_view model_name) {
  std::string lower(model_name);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  static constexpr std::pair<std::string_view, const char*> kRules[] = {{"llama-2", "llava_llama_2"},
                                                                        {"mistral", "mistral_instruct"},
                                                                        {"v1.6-34b", "chatml_direct"},
                                                                        {"v1", "llava_v1"},
                                                                        {"mpt", "mpt"}};
  for (const auto& [part, format] : kRules)
    if (lower.find(part) != std::string::npos) return format;
  return "llava_v0";
}

}  // namespace llava
