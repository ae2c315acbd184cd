#include "http/chat_endpoint.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "http/data_uri.h"

namespace llava {

namespace {

constexpr std::size_t kMaxImageBytes = std::size_t{64} << 20;
constexpr std::size_t kMaxExcerpt = 300;
constexpr double kMaxWaitSeconds = 30;  // also where the server wishes for more

std::string excerpt(std::string_view text) {
  if (text.size() <= kMaxExcerpt) return std::string(text);
  return std::string(text.substr(0, kMaxExcerpt)) + "…";
}

std::string json_excerpt(const Json& json) { return excerpt(json.dump(-1, ' ', false, Json::error_handler_t::replace)); }

/// What the endpoint says is wrong: {"error": {"message": …}}, {"error": …}, {"message": …}; else the body itself.
std::string endpoint_complaint(std::string_view body) {
  const auto parsed = try_outcome([&] { return parse_json(body, "the reply"); });
  if (!parsed || !parsed.value().is_object()) return excerpt(body);
  const Json& json = parsed.value();
  const auto error = json.find("error");
  const Json& source = error != json.end() ? *error : json;
  if (source.is_string()) return excerpt(source.get_ref<const std::string&>());
  if (source.is_object() && source.contains("message") && source.at("message").is_string())
    return excerpt(source.at("message").get_ref<const std::string&>());
  return json_excerpt(source);
}

bool is_worth_a_retry(const HttpReply& reply) {
  if (reply.status == 0) return reply.try_again;
  return reply.status == 429 || reply.status >= 500;
}

/// Sleeps in small steps, so that a Ctrl-C is seen.
void wait(double seconds, const std::atomic<bool>* cancel) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  do {
    if (cancel != nullptr && cancel->load()) fail(ErrorKind::kStopped, "stopped");
    const auto left = end - std::chrono::steady_clock::now();
    std::this_thread::sleep_for(std::min<std::chrono::duration<double>>(left, std::chrono::milliseconds(20)));
  } while (std::chrono::steady_clock::now() < end);
}

void check_options(const EndpointOptions& options) {
  const bool printable = std::all_of(options.api_key.begin(), options.api_key.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (!printable) fail(ErrorKind::kUsage, "the API key holds a space, a line break or a letter outside ASCII");
  if (options.retries < 0 || options.retries > 100) fail(ErrorKind::kUsage, "{} retries are not in [0, 100]", options.retries);
  const double timeout = options.limits.timeout_seconds;
  if (!(timeout > 0) || timeout > 86400) fail(ErrorKind::kUsage, "a timeout of {} s is not in (0, 86400]", timeout);
  if (options.max_tokens < 1) fail(ErrorKind::kUsage, "{} new tokens are too few", options.max_tokens);
}

ChatEndpoint::Post post_over_http(const EndpointOptions& options) {
  const Url url = parse_url(options.url);
  if (!http_is_built())
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: this llava was built without an HTTP client", options.url),
                "install libboost-dev (and libssl-dev for https) and build again with -DLLAVA_HTTP=ON");
  if (url.tls && !https_is_built())
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: this llava was built without OpenSSL", options.url),
                "install libssl-dev and build again, or use an http:// endpoint");
  if (!options.api_key.empty() && !url.tls && !is_loopback(url))
    log_warning("endpoint", "the API key goes to {} unencrypted; https:// would hide it", url.authority());
  return [url, key = options.api_key, limits = options.limits](std::string_view body, const std::atomic<bool>* cancel) {
    return http_post_json(url, "/chat/completions", key, body, limits, cancel);
  };
}

}  // namespace

Json chat_request(const EndpointOptions& options, const std::vector<std::string>& image_uris, std::string_view text) {
  Json parts = Json::array();
  for (const std::string& uri : image_uris) parts.push_back({{"type", "image_url"}, {"image_url", {{"url", uri}}}});
  parts.push_back({{"type", "text"}, {"text", text}});
  return {{"model", options.model},
          {"messages", Json::array({{{"role", "user"}, {"content", std::move(parts)}}})},
          {"max_tokens", options.max_tokens},
          {"temperature", 0}};
}

std::string parse_chat_reply(std::string_view body) {
  const Json reply = parse_json(body, "the endpoint's reply");
  if (!reply.is_object()) fail(ErrorKind::kFormat, "the endpoint's reply is not a JSON object: {}", json_excerpt(reply));
  const auto choices = reply.find("choices");
  if (choices == reply.end() && reply.contains("error"))
    fail(ErrorKind::kFormat, "the endpoint says: {}", endpoint_complaint(body));
  if (choices == reply.end() || !choices->is_array() || choices->empty())
    fail(ErrorKind::kFormat, "the endpoint's reply has no \"choices\": {}", json_excerpt(reply));
  const Json& choice = choices->front();
  const auto message = choice.is_object() ? choice.find("message") : choice.end();
  if (!choice.is_object() || message == choice.end() || !message->is_object())
    fail(ErrorKind::kFormat, "the endpoint's choice has no \"message\": {}", json_excerpt(choice));
  const auto content = message->find("content");
  if (content == message->end() || !content->is_string())
    fail(ErrorKind::kFormat, "the endpoint's message has no text as \"content\": {}", json_excerpt(*message));
  return content->get<std::string>();
}

ChatEndpoint::ChatEndpoint(EndpointOptions options) : options_(std::move(options)) {
  check_options(options_);
  post_ = post_over_http(options_);
}

ChatEndpoint::ChatEndpoint(EndpointOptions options, Post post) : options_(std::move(options)), post_(std::move(post)) {
  check_options(options_);
}

HttpReply ChatEndpoint::post_with_retries(std::string_view body, const std::atomic<bool>* cancel) {
  double pause = options_.first_wait_seconds;
  for (int retry = 0;; ++retry) {
    HttpReply reply = post_(body, cancel);
    if (!is_worth_a_retry(reply) || retry == options_.retries) return reply;
    wait(std::min(std::max(pause, reply.retry_after_seconds.value_or(0)), kMaxWaitSeconds), cancel);
    pause *= 2;
  }
}

std::string ChatEndpoint::ask(const std::vector<std::string>& images, std::string_view text, const std::atomic<bool>* cancel) {
  std::vector<std::string> uris;
  for (const std::string& image : images)
    uris.push_back(with_context(image, [&] { return image_data_uri(read_file(image, kMaxImageBytes)); }));
  // A file's text may hold bytes that are no UTF-8; JSON cannot carry them.
  const std::string body = chat_request(options_, uris, text).dump(-1, ' ', false, Json::error_handler_t::replace);
  const HttpReply reply = post_with_retries(body, cancel);
  if (reply.status == 0) fail(ErrorKind::kInput, "{}: {}", options_.url, reply.failure);
  if (reply.status / 100 != 2)
    fail(ErrorKind::kInput, "{} answers with status {}: {}", options_.url, reply.status,
         reply.status / 100 == 3 ? "it redirects, which is not followed" : endpoint_complaint(reply.body));
  return parse_chat_reply(reply.body);
}

}  // namespace llava
