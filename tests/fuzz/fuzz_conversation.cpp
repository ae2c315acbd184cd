#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string_view>

#include "base/error.h"
#include "text/chat_format.h"

// Any bytes as a message list and as a LLaVA record; an accepted one must render in every named format or
// be refused.
namespace {

using namespace llava;

void render_everywhere(const Conversation& conversation) {
  for (const std::string& name : chat_format_names()) {
    const auto format = find_chat_format(name);
    for (const bool training : {false, true}) try {
        std::size_t media = 0;
        for (const Segment& segment :
             training ? format->render_training(conversation) : format->render(conversation, true)) {
          media += segment.is_media();
          if (segment.trained && segment.is_media()) std::abort();
        }
        if (media > conversation.num_media()) std::abort();
      } catch (const Error& e) {
        if (e.kind() != ErrorKind::kInput) std::abort();
      }
  }
}

void try_one(const std::function<Conversation()>& read) {
  try {
    render_everywhere(read());
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Json json;
  try {
    json = parse_json(text, "input");
  } catch (const Error&) {
    return 0;
  }
  try_one([&] { return conversation_from_messages(json); });
  for (const ImagePlacement placement :
       {ImagePlacement::kInline, ImagePlacement::kSingleFirst, ImagePlacement::kAllFirst})
    try_one([&] {
      return conversation_from_llava(json, {.placement = placement, .drop_leading_answers = size % 2 == 0});
    });
  return 0;
}
