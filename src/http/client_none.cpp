#include "base/error.h"
#include "http/client.h"

namespace llava {

bool http_is_built() { return false; }
bool https_is_built() { return false; }

HttpReply http_post_json(const Url& url, std::string_view, std::string_view, std::string_view, const HttpLimits&,
                         const std::atomic<bool>*) {
  throw Error(ErrorKind::kUnsupported, fmt::format("{}: this llava was built without an HTTP client", url.authority()),
              "install libboost-dev (and libssl-dev for https) and build again with -DLLAVA_HTTP=ON");
}

}  // namespace llava
