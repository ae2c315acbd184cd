#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include "base/error.h"
#include "text/chat_format.h"
#include "text/jinja.h"
#include "text/jinja_value.h"  // strip
#include "text/segment_builder.h"

namespace llava {

namespace {

struct Placeholder {
  std::string_view text;
  Part::Kind kind;
};
/// What the supported families' templates write for media.
constexpr std::array kPlaceholders = {
    Placeholder{"<image>", Part::Kind::kImage},       Placeholder{"<video>", Part::Kind::kVideo},
    Placeholder{"<|image_pad|>", Part::Kind::kImage}, Placeholder{"<|video_pad|>", Part::Kind::kVideo},
    Placeholder{"<IMG_CONTEXT>", Part::Kind::kImage}, Placeholder{"<|image|>", Part::Kind::kImage},
};

/// One text or media part of the conversation on its way through the template.
struct Item {
  int turn = -1;
  bool is_answer = false;
  Part::Kind kind = Part::Kind::kText;
  std::size_t media_index = 0;
  std::string text;
};

/// Where an item stands in the rendered text.
struct Place {
  std::size_t begin = 0, end = 0;
  const Item* item = nullptr;
};

/// What is put around the items' texts so that they can be found in the output.
enum class Marking {
  kWhole,  ///< around the text: exact where the template writes it as it is
  kCore,   ///< inside the white space at its ends: survives templates that trim
};

/// Two private characters that do not occur in the conversation: around an item's number, and behind its
/// text.
struct Marks {
  std::string open, close;
};

std::string private_character(std::uint32_t offset) {  // U+F0000 and on
  return {'\xF3', '\xB0', static_cast<char>(0x80 | (offset >> 6 & 0x3F)),
          static_cast<char>(0x80 | (offset & 0x3F))};
}

Marks pick_marks(const std::string& rendered) {
  std::vector<std::string> unused;
  for (std::uint32_t offset = 0; offset < 4096 && unused.size() < 2; ++offset)
    if (rendered.find(private_character(offset)) == std::string::npos)
      unused.push_back(private_character(offset));
  if (unused.size() < 2) fail(ErrorKind::kInput, "chat template: the messages hold all private characters");
  return {unused[0], unused[1]};
}

std::string marked(const Item& item, std::size_t number, const Marks& marks, Marking marking) {
  const std::string_view core = marking == Marking::kWhole ? std::string_view(item.text)
                                                           : jinja::strip(item.text, jinja::Side::kBoth);
  const std::size_t begin = core.empty() ? 0 : static_cast<std::size_t>(core.data() - item.text.data());
  return fmt::format("{}{}{}{}{}{}{}", item.text.substr(0, begin), marks.open, number, marks.open, core,
                     marks.close, std::string_view(item.text).substr(begin + core.size()));
}

/// Takes the marks out of `text`; nothing if they are damaged or the rest is not `expected`.
std::optional<std::vector<Place>> find_marked(std::string_view text, std::string_view expected,
                                              const Marks& marks, const std::vector<Item>& items) {
  std::string plain;
  std::vector<Place> places;
  while (true) {
    const std::size_t open = text.find(marks.open);
    plain += text.substr(0, open);
    if (open == std::string_view::npos) break;
    text.remove_prefix(open + marks.open.size());
    const std::size_t number_end = text.find(marks.open), close = text.find(marks.close);
    if (number_end == std::string_view::npos || number_end > 9 || close == std::string_view::npos ||
        close < number_end)
      return std::nullopt;
    const std::string digits(text.substr(0, number_end));
    if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
    const std::size_t number = std::stoul(digits), begin = number_end + marks.open.size();
    if (number >= items.size() || close < begin) return std::nullopt;
    places.push_back({plain.size(), plain.size() + close - begin, &items[number]});
    plain += text.substr(begin, close - begin);
    text.remove_prefix(close + marks.close.size());
  }
  if (plain != expected) return std::nullopt;
  return places;
}

/// Without marks: each text is looked for behind the one before it; what a template rewrote stays unfound.
std::vector<Place> find_in_order(std::string_view text, const std::vector<Item>& items) {
  std::vector<Place> places;
  std::size_t from = 0;
  for (const Item& item : items) {
    const std::string_view core = jinja::strip(item.text, jinja::Side::kBoth);
    const std::size_t at = core.empty() ? std::string_view::npos : text.find(core, from);
    if (at == std::string_view::npos) continue;
    places.push_back({at, at + core.size(), &item});
    from = at + core.size();
  }
  return places;
}

class JinjaFormat : public ChatFormat {
 public:
  JinjaFormat(std::string source, const Json& variables) : template_(source) {
    if (!variables.is_object()) fail(ErrorKind::kFormat, "chat template: the variables must be an object");
    variables_ = OrderedJson::object();
    for (const char* absent : {"tools", "documents"}) variables_[absent] = nullptr;
    for (const auto& [key, value] : variables.items())  // tokenizer_config.json may hold an AddedToken
      variables_[key] = value.is_object() && value.contains("content") ? OrderedJson(value["content"])
                                                                       : OrderedJson(value);
    const auto eos = variables_.find("eos_token");
    if (eos != variables_.end() && eos->is_string() && !eos->get<std::string>().empty())
      stop_strings_.push_back(*eos);
    for (const char* known :
         {"<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "</s>", "<end_of_utterance>"})
      if (source.find(known) != std::string::npos && (stop_strings_.empty() || stop_strings_[0] != known))
        stop_strings_.push_back(known);
    probe();
  }

  const std::string& name() const override { return name_; }
  const std::vector<std::string>& stop_strings() const override { return stop_strings_; }

  std::vector<Segment> render(const Conversation& conversation, bool add_generation_prompt) const override {
    const std::vector<Item> items = collect(conversation);
    const auto plain_text = [](const Item& item, std::size_t) { return item.text; };
    const JinjaOutput output = run(messages(conversation, items, plain_text), add_generation_prompt);
    std::vector<Place> places = locate(conversation, items, add_generation_prompt, output.text);
    return segments(output, add_literal_media(output.text, std::move(places), items));
  }

 private:
  enum class Content { kText, kList };  // what the template takes as message['content']

  bool as_list(const std::string& role) const {
    return (role == "system" ? system_content_ : content_) == Content::kList;
  }

  JinjaOutput run(const OrderedJson& messages, bool add_generation_prompt) const {
    OrderedJson variables = variables_;
    variables["messages"] = messages;
    variables["add_generation_prompt"] = add_generation_prompt;
    return template_.render(variables);
  }

  /// Finds out whether the template writes texts given as a list of parts; a key that should not be written
  /// shows when it only prints the list.
  void probe() {
    static constexpr const char *kText = "Zq7Wk", *kStray = "Xv3Jd";
    const auto writes = [&](const OrderedJson& system, const OrderedJson& user) {
      OrderedJson messages = OrderedJson::array();
      if (!system.is_null()) messages.push_back({{"role", "system"}, {"content", system}});
      messages.push_back({{"role", "user"}, {"content", user}});
      try {
        const std::string text = run(messages, true).text;
        return text.find(kText) != std::string::npos && text.find(kStray) == std::string::npos;
      } catch (const Error&) {
        return false;
      }
    };
    const OrderedJson list = OrderedJson::array({{{"type", "text"}, {"text", kText}, {"stray", kStray}}});
    const OrderedJson other = OrderedJson::array({{{"type", "text"}, {"text", "Hello"}}});
    content_ = writes(nullptr, list) ? Content::kList : Content::kText;
    const OrderedJson question = content_ == Content::kList ? other : OrderedJson("Hello");
    system_content_ = writes(list, question)    ? Content::kList
                      : writes(kText, question) ? Content::kText
                                                : content_;
  }

  std::vector<Item> collect(const Conversation& conversation) const {
    std::vector<Item> items;
    std::size_t num_media = 0;
    for (std::size_t i = 0; i < conversation.messages.size(); ++i) {
      const Message message = adapted(conversation, i);
      for (const Part& part : message.parts) {
        Item item{static_cast<int>(i), message.role == "assistant", part.kind, 0, part.text};
        if (part.is_media()) {
          item.media_index = num_media++;
          item.text = part.kind == Part::Kind::kImage ? "<image>" : "<video>";
        }
        items.push_back(std::move(item));
      }
    }
    return items;
  }

  /// Message `i` with its media as the template wants them: apart in a list, or inside the text.
  Message adapted(const Conversation& conversation, std::size_t i) const {
    const Message& message = conversation.messages[i];
    if (as_list(message.role)) return conversation.inline_media ? with_separate_media(message) : message;
    return conversation.inline_media ? message : with_inline_media(message);
  }

  /// The messages as the template sees them; `text_of(item, its number)` gives the texts.
  template <class TextOf>
  OrderedJson messages(const Conversation& conversation, const std::vector<Item>& items,
                       const TextOf& text_of) const {
    OrderedJson out = OrderedJson::array();
    std::size_t n = 0;
    for (std::size_t i = 0; i < conversation.messages.size(); ++i) {
      const std::string& role = conversation.messages[i].role;
      OrderedJson list = OrderedJson::array();
      std::string text;
      for (; n < items.size() && items[n].turn == static_cast<int>(i); ++n) {
        const Item& item = items[n];
        if (!as_list(role))
          text += text_of(item, n);
        else if (item.kind == Part::Kind::kText)
          list.push_back({{"type", "text"}, {"text", text_of(item, n)}});
        else
          list.push_back({{"type", item.kind == Part::Kind::kImage ? "image" : "video"}});
      }
      out.push_back({{"role", role}, {"content", as_list(role) ? list : OrderedJson(text)}});
    }
    return out;
  }

  std::vector<Place> locate(const Conversation& conversation, const std::vector<Item>& items,
                            bool add_generation_prompt, const std::string& text) const {
    std::string all = text;
    for (const Item& item : items) all += item.text;
    const Marks marks = pick_marks(all);
    for (const Marking marking : {Marking::kWhole, Marking::kCore}) {
      const auto text_of = [&](const Item& item, std::size_t n) { return marked(item, n, marks, marking); };
      try {
        const std::string with_marks =
            run(messages(conversation, items, text_of), add_generation_prompt).text;
        if (auto places = find_marked(with_marks, text, marks, items)) return *places;
      } catch (const Error&) {  // a template may look into the text; the next way does not change it
      }
    }
    return find_in_order(text, items);
  }

  /// Adds the placeholders the template itself wrote: the n-th image of the output is the n-th of the
  /// conversation.
  static std::vector<Place> add_literal_media(std::string_view text, std::vector<Place> places,
                                              const std::vector<Item>& items) {
    std::vector<const Item*> images, videos;
    for (const Item& item : items)
      if (item.kind != Part::Kind::kText &&
          std::none_of(places.begin(), places.end(), [&](const Place& p) { return p.item == &item; }))
        (item.kind == Part::Kind::kImage ? images : videos).push_back(&item);
    if (images.empty() && videos.empty()) return places;
    std::vector<Place> found;
    std::size_t next_image = 0, next_video = 0, from = 0;
    const auto scan = [&](std::size_t end) {
      for (; from < end; ++from)
        for (const Placeholder& placeholder : kPlaceholders) {
          if (from + placeholder.text.size() > end ||
              text.substr(from, placeholder.text.size()) != placeholder.text)
            continue;
          const bool is_image = placeholder.kind == Part::Kind::kImage;
          std::size_t& next = is_image ? next_image : next_video;
          const std::vector<const Item*>& list = is_image ? images : videos;
          if (next >= list.size()) continue;
          found.push_back({from, from + placeholder.text.size(), list[next++]});
          from += placeholder.text.size() - 1;
          break;
        }
    };
    for (const Place& place : places) {
      scan(place.begin);
      from = std::max(from, place.end);
    }
    scan(text.size());
    places.insert(places.end(), found.begin(), found.end());
    std::stable_sort(places.begin(), places.end(),
                     [](const Place& a, const Place& b) { return a.begin < b.begin; });
    return places;
  }

  /// What the loss covers: the template's {% generation %} blocks, else the answers with the spaces before
  /// them; both with the end token that follows.
  std::vector<TextRange> trained_ranges(const JinjaOutput& output, const std::vector<Place>& places) const {
    std::vector<TextRange> ranges = output.generations;
    const std::string& text = output.text;
    if (ranges.empty())
      for (const Place& place : places) {
        if (!place.item->is_answer || place.item->kind != Part::Kind::kText) continue;
        std::size_t begin = place.begin;
        while (begin > 0 && text[begin - 1] == ' ' && (ranges.empty() || begin > ranges.back().end))
          --begin;
        ranges.push_back({begin, place.end});
      }
    for (TextRange& range : ranges) {
      const std::size_t at = std::min(text.find_first_not_of(" \n", range.end), text.size());
      for (const std::string& stop : stop_strings_)
        if (text.compare(at, stop.size(), stop) == 0) {
          range.end = at + stop.size();
          break;
        }
    }
    return ranges;
  }

  std::vector<Segment> segments(const JinjaOutput& output, const std::vector<Place>& places) const {
    const std::vector<TextRange> trained = trained_ranges(output, places);
    std::vector<std::size_t> cuts = {0, output.text.size()};
    for (const Place& place : places) cuts.insert(cuts.end(), {place.begin, place.end});
    for (const TextRange& range : trained) cuts.insert(cuts.end(), {range.begin, range.end});
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    SegmentBuilder out;
    std::set<const Item*> shown;  // media
    std::size_t place = 0, range = 0;
    for (std::size_t i = 0, next = 1; next < cuts.size(); i = next++) {
      const std::size_t begin = cuts[i];
      while (place < places.size() && places[place].end <= begin) ++place;
      while (range < trained.size() && trained[range].end <= begin) ++range;
      Segment segment;
      segment.trained = range < trained.size() && trained[range].begin <= begin;
      if (place < places.size() && places[place].begin <= begin) {
        const Item& item = *places[place].item;
        segment.turn = item.turn;
        segment.user_text = item.kind == Part::Kind::kText;
        if (item.kind != Part::Kind::kText) {
          if (!shown.insert(&item).second)
            fail(ErrorKind::kFormat, "{}: the template shows one image or video twice", name_);
          segment.kind = item.kind == Part::Kind::kImage ? Segment::Kind::kImage : Segment::Kind::kVideo;
          segment.media_index = item.media_index;
          segment.trained = false;
          while (cuts[next] < places[place].end) ++next;  // a placeholder stays whole
        }
      }
      segment.text = output.text.substr(begin, cuts[next] - begin);
      out.add(std::move(segment));
    }
    return out.take();
  }

  std::string name_ = "chat_template";
  JinjaTemplate template_;
  OrderedJson variables_;
  std::vector<std::string> stop_strings_;
  Content content_ = Content::kText, system_content_ = Content::kText;
};

}  // namespace

std::shared_ptr<const ChatFormat> chat_format_from_jinja(std::string source, const Json& variables) {
  return std::make_shared<const JinjaFormat>(std::move(source), variables);
}

}  // namespace llava
