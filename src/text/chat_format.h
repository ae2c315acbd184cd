#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/conversation.h"

namespace llava {

/// A stretch of the rendered prompt. The concatenated texts are the prompt; `trained` marks what the loss covers.
struct Segment {
  enum class Kind { kText, kImage, kVideo };
  Kind kind = Kind::kText;
  std::string text;                        ///< for media: the placeholder as rendered ("<image>")
  bool trained = false;                    ///< an assistant's words and its end token
  bool user_text = false;                  ///< came from a message: may be tokenised with special tokens disabled
  std::size_t media_index = 0;             ///< n-th image/video of the conversation
  int turn = -1;                           ///< index of the message it came from; -1: none (system default, separators)
  bool operator==(const Segment&) const = default;
};

/// Renders a Conversation: either one of LLaVA's named formats (spec 3.2) or a checkpoint's Jinja chat_template.
class ChatFormat {
 public:
  virtual ~ChatFormat() = default;
  virtual const std::string& name() const = 0;
  /// The prompt as segments. `add_generation_prompt`: ends where the assistant's answer begins.
  virtual std::vector<Segment> render(const Conversation& conversation, bool add_generation_prompt) const = 0;
  std::string render_text(const Conversation& conversation, bool add_generation_prompt) const;
  /// Texts that end an answer ("</s>", "<|im_end|>", "###").
  virtual const std::vector<std::string>& stop_strings() const = 0;
};

/// A named format: vicuna_v1, v1, llava_v0, llava_v1, plain, llava_llama_2, mistral_instruct, chatml_direct, mpt, qwen_1_5, … (and aliases).
/// Error{kUsage} with the nearest name.
std::shared_ptr<const ChatFormat> find_chat_format(std::string_view name);
std::vector<std::string> chat_format_names();

/// A Hugging Face chat_template (Jinja), with the variables HF passes (bos_token, eos_token, …).
std::shared_ptr<const ChatFormat> chat_format_from_jinja(std::string source, const Json& variables);

}  // namespace llava
