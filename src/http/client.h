#pragma once
#include <atomic>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "http/url.h"

namespace llava {

/// Bounds on one exchange. The other side may be slow, broken or hostile: none of these can be passed by it.
struct HttpLimits {
  double timeout_seconds = 120;                         ///< from name resolution to the last byte
  std::size_t max_reply_bytes = std::size_t{16} << 20;  ///< of the body
  std::size_t max_header_bytes = std::size_t{64} << 10;
};

/// What came back, or why nothing did.
struct HttpReply {
  int status = 0;                              ///< 0: no whole reply came; `failure` says why
  std::string body;
  std::string failure;
  bool try_again = false;                      ///< without a reply: whether another try may go better
  std::optional<double> retry_after_seconds;   ///< the server's wish
};

/// Whether this build can reach http:// at all, and https:// too.
bool http_is_built();
bool https_is_built();

/// Posts a JSON document to `url`, path `url.path + path`; `bearer` (may be empty) goes into the Authorization
/// header. Redirects are not followed: the key and the images are for this host only. Certificates are checked
/// against the system's (SSL_CERT_FILE and SSL_CERT_DIR name others).
/// Error{kStopped} soon after `cancel` is set; Error{kUnsupported} where the build has no client. What the
/// other side does wrong is in the reply.
HttpReply http_post_json(const Url& url, std::string_view path, std::string_view bearer, std::string_view body,
                         const HttpLimits& limits, const std::atomic<bool>* cancel);

}  // namespace llava
