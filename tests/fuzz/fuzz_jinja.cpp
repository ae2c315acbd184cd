#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "text/chat_format.h"
#include "text/jinja.h"

// A chat template and, behind a NUL byte, the messages it gets as JSON (else a fixed conversation). The
// segments must join to the template's output.
namespace {

constexpr const char* kMessages =
    R"([{"role": "system", "content": "S"}, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " Q </s> "}]},
        {"role": "assistant", "content": "A\nb"}, {"role": "user", "content": "R"}])";

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace llava;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t split = input.find('\0');
  const std::string_view json = split == std::string_view::npos ? kMessages : input.substr(split + 1);
  try {
    const Json messages = parse_json(json, "messages");
    const JinjaLimits limits{.steps = 100'000, .output_bytes = 1 << 20};
    try {
      JinjaTemplate(std::string(input.substr(0, split)), limits)
          .render(
              {{"messages", OrderedJson(messages)}, {"bos_token", "<s>"}, {"add_generation_prompt", true}});
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::kInternal) std::abort();
      if (e.kind() == ErrorKind::kResource)
        return 0;  // chat_format_from_jinja has larger limits: slow to fuzz
    }
    const auto format = chat_format_from_jinja(std::string(input.substr(0, split)),
                                               {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    const Conversation conversation = conversation_from_messages(messages);
    std::size_t media = 0;
    for (const Segment& segment : format->render(conversation, false)) {
      if (segment.turn >= static_cast<int>(conversation.messages.size())) std::abort();
      media += segment.is_media();
    }
    if (media > conversation.num_media()) std::abort();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kInternal) std::abort();
  }
  return 0;
}
