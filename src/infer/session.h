#pragma once
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "infer/generate.h"
#include "infer/image_store.h"
#include "infer/model_bundle.h"

namespace llava {

/// What to do when the conversation does not fit the model's context any more.
enum class ContextPolicy {
  kDrop,    ///< forget the oldest question and answer (its images stay) and say so
  kRefuse,  ///< Error{kInput}
};

struct SessionOptions {
  SamplingParams sampling;  ///< stop ids and strings of the checkpoint are added
  std::string system;       ///< empty: the chat format's own
  ContextPolicy context = ContextPolicy::kDrop;
  std::int64_t context_length = 0;                 ///< 0: the model's
  bool time_instruction = false;  ///< say when a video's frames are, also where the checkpoint does not ask for it
  bool reuse_cache = true;                         ///< false: every turn computes its whole prompt
  std::function<void(const std::string&)> notice;  ///< told about dropped turns
};

struct Answer {
  std::string text;
  std::vector<std::int64_t> ids;
  StopReason reason = StopReason::kMaxNewTokens;
  GenerationStats stats;
};

/// Tokens that a decoder takes.
std::int64_t model_context(const DecoderConfig& decoder);

/// Error{kInput} if a chat is not possible with what the checkpoint has: no tokenizer, no chat format.
/// Costs nothing, so a caller asks before the weights are loaded.
void check_can_chat(const CheckpointInfo& checkpoint);

/// A conversation with a model: history, images, and the keys and values of what was said, of which the
/// next turn computes only what is new.
class ChatSession {
 public:
  /// Error{kInput} as check_can_chat.
  ChatSession(ModelBundle& bundle, SessionOptions options);
  ~ChatSession();

  /// The image goes with the next question. Error{kInput} for a model without vision, and as
  /// ImageStore::load.
  void add_image(const std::filesystem::path& path);

  /// The same for a video or a folder of frames. Returns what is wrong with a film of which only a part could
  /// be read; empty if nothing is.
  std::string add_video(const std::filesystem::path& path, const VideoOptions& options = {});

  /// Asks and keeps question and answer as history. `on_text` gets the answer as it grows. On an Error
  /// nothing changes. A cancelled answer stays as far as it got.
  Answer ask(const std::string& question, const std::function<void(std::string_view)>& on_text = {},
             const std::atomic<bool>* cancel = nullptr);

  /// Forgets history and images; encoded images and shared prefixes stay cached.
  void clear();
  /// The history, and the images in the order of their places in it.
  const Conversation& conversation() const { return conversation_; }
  std::size_t num_images() const { return images_.size() + waiting_.size(); }
  std::int64_t context_length() const { return context_length_; }

 private:
  /// The next question with the media that wait for it, labelled where the model wants that.
  Message message_of(const std::string& question) const;
  Prompt build(const Conversation& conversation,
               const std::vector<std::shared_ptr<const EncodedMedia>>& images) const;
  Prompt fit(Conversation& conversation, const std::vector<std::shared_ptr<const EncodedMedia>>& images);
  std::int64_t reusable(const Prompt& prompt,
                        const std::vector<std::shared_ptr<const EncodedMedia>>& images) const;
  Answer answer(const Prompt& prompt, const std::vector<std::shared_ptr<const EncodedMedia>>& images,
                const std::function<void(std::string_view)>& on_text, const std::atomic<bool>* cancel);
  /// LLaVA-Mini: the prompt's embeddings [T,D], its text fused with the media.
  at::Tensor fused(const Prompt& prompt, const std::vector<std::shared_ptr<const EncodedMedia>>& images);
  KvCache* prepare_cache(const Prompt& prompt,
                         const std::vector<std::shared_ptr<const EncodedMedia>>& images);

  ModelBundle& bundle_;
  SessionOptions options_;
  std::int64_t context_length_ = 0;
  std::unique_ptr<ImageStore> store_;
  VideoOptions video_;  // of the last film
  Conversation conversation_;
  struct Waiting {
    std::shared_ptr<const EncodedMedia> media;
    std::string label;  // of a frame
  };
  std::vector<std::shared_ptr<const EncodedMedia>> images_;
  std::vector<Waiting> waiting_;
  std::string waiting_times_;  // what is said of the times of their frames

  std::unique_ptr<KvCache> cache_;
  std::vector<std::int64_t> cached_ids_;     // what the cache holds
  std::vector<std::uint64_t> cached_media_;  // for each cached id the hash of its image, 0 for text
};

}  // namespace llava
