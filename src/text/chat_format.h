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

/// A stretch of the rendered prompt. The concatenated texts are the prompt; `trained` marks what the loss
/// covers.
struct Segment {
  enum class Kind { kText, kImage, kVideo };
  Kind kind = Kind::kText;
  std::string text;             ///< for media: the placeholder as rendered ("<image>")
  bool trained = false;         ///< an assistant's words and its end token
  bool user_text = false;       ///< came from a message: may be tokenised with special tokens disabled
  std::size_t media_index = 0;  ///< n-th image or video of the conversation
  int turn = -1;  ///< index of its message (role names and ends too); -1: none (system default)
  bool is_media() const { return kind != Kind::kText; }
  bool operator==(const Segment&) const = default;
};

/// How the masks of the original training code differ from "the answers and their end tokens" (spec 3.4).
struct UpstreamMask {
  enum class Kind {
    kNone,          ///< they do not
    kCountedTurns,  ///< v0: turns are counted in tokens tokenised alone, each with its BOS; a human turn's
                    ///< first two stay trained
    kRoleTokens,    ///< qwen, llama_3: the assistant's header is trained, and `tokens` are wherever they
                    ///< stand
  };
  Kind kind = Kind::kNone;
  std::vector<std::string> tokens;
};

/// Renders a Conversation: either one of LLaVA's named formats (spec 3.2) or a checkpoint's Jinja
/// chat_template.
class ChatFormat {
 public:
  virtual ~ChatFormat() = default;
  virtual const std::string& name() const = 0;
  /// The prompt as segments. `add_generation_prompt`: ends where the assistant's answer begins.
  /// Error{kInput} for conversations the format cannot express.
  virtual std::vector<Segment> render(const Conversation& conversation,
                                      bool add_generation_prompt) const = 0;
  /// What the original training code feeds for a whole conversation: other than render() for plain (the
  /// question's words are dropped) and v0 ("### Human: …\n").
  virtual std::vector<Segment> render_training(const Conversation& conversation) const {
    return render(conversation, false);
  }
  std::string render_text(const Conversation& conversation, bool add_generation_prompt) const;
  /// Texts that end an answer ("</s>", "<|im_end|>", "###").
  virtual const std::vector<std::string>& stop_strings() const = 0;
  virtual UpstreamMask upstream_mask() const { return {}; }
};

/// A named format: vicuna_v1, v1, llava_v0, llava_v1, plain, llava_llama_2, mistral_instruct,
/// chatml_direct, mpt, qwen_1_5, … (and aliases). Error{kUsage} with the nearest name.
std::shared_ptr<const ChatFormat> find_chat_format(std::string_view name);
/// All names, aliases included, sorted.
std::vector<std::string> chat_format_names();

/// A Hugging Face chat_template (Jinja), with the variables HF passes (bos_token, eos_token, …). Media are
/// found by the placeholders the template writes, answers by marks put around the messages' texts.
/// Error{kFormat} for a bad template.
std::shared_ptr<const ChatFormat> chat_format_from_jinja(std::string source, const Json& variables);

/// The format a model's name stood for in the original command-line tools (spec 3.2); "llava_v0" where
/// nothing fits.
std::string chat_format_name_for_model(std::string_view model_name);

}  // namespace llava
