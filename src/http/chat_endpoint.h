#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "http/client.h"

/// A model behind an OpenAI-compatible endpoint: one question, one answer.
namespace llava {

struct EndpointOptions {
  std::string url;                    ///< up to and with "/v1"
  std::string model = "default";      ///< what the endpoint calls it; many that serve one model take any name
  std::string api_key;                ///< empty: none is sent
  std::int64_t max_tokens = 512;
  int retries = 3;                    ///< after the first try: no connection, a broken one, 429 and 5xx
  double first_wait_seconds = 0.5;    ///< before the first retry; doubles each time
  HttpLimits limits;
};

/// The body of a request: one user message, the images (data URIs) before the text; temperature 0.
Json chat_request(const EndpointOptions& options, const std::vector<std::string>& image_uris, std::string_view text);

/// The text of a reply's first choice. Error{kFormat} for anything else, with what the endpoint says where it
/// says something.
std::string parse_chat_reply(std::string_view body);

class ChatEndpoint {
 public:
  /// How a body is sent; tests put their own.
  using Post = std::function<HttpReply(std::string_view body, const std::atomic<bool>* cancel)>;

  /// Error{kUsage} for a bad URL, an https one where the build cannot, a key that no header can hold, or a limit
  /// out of range; Error{kUnsupported} where the build has no HTTP client.
  explicit ChatEndpoint(EndpointOptions options);
  ChatEndpoint(EndpointOptions options, Post post);

  /// The model's answer about the image files. Error{kInput} where a file cannot be read or the endpoint cannot
  /// be reached or refuses, Error{kFormat} where its reply is not one, Error{kStopped} soon after `cancel` is set.
  std::string ask(const std::vector<std::string>& images, std::string_view text, const std::atomic<bool>* cancel = nullptr);

 private:
  HttpReply post_with_retries(std::string_view body, const std::atomic<bool>* cancel);

  EndpointOptions options_;
  Post post_;
};

}  // namespace llava
