#include "http/url.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace llava {

namespace {

constexpr std::size_t kMaxUrlBytes = 2048;

[[noreturn]] void refuse_url(std::string_view text, std::string_view why) {
  throw Error(ErrorKind::kUsage, fmt::format("\"{}\" is not an endpoint's URL: {}", text.substr(0, 100), why),
              "for example http://127.0.0.1:8000/v1");
}

/// Of a URL these bytes may appear; a line break would end up in the request's header.
bool is_url_byte(char c) { return c > ' ' && c < 0x7f && std::string_view("\"<>\\^`{|}").find(c) == std::string_view::npos; }

int parse_port(std::string_view text, std::string_view digits) {
  int port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port < 1 || port > 65535)
    refuse_url(text, "the port is not in [1, 65535]");
  return port;
}

/// "host", "host:port", "[::1]:port".
void parse_authority(std::string_view text, std::string_view authority, Url& url) {
  std::string_view port;
  if (authority.starts_with('[')) {
    const std::size_t end = authority.find(']');
    if (end == std::string_view::npos) refuse_url(text, "a bracket is not closed");
    url.host = authority.substr(1, end - 1);
    port = authority.substr(end + 1);
    if (!port.empty() && port[0] != ':') refuse_url(text, "after the address stands no port");
  } else {
    const std::size_t colon = std::min(authority.find(':'), authority.size());
    url.host = authority.substr(0, colon);
    port = authority.substr(colon);
  }
  if (url.host.empty()) refuse_url(text, "the host is missing");
  if (!port.empty()) url.port = parse_port(text, port.substr(1));
}

}  // namespace

Url parse_url(std::string_view text) {
  if (text.size() > kMaxUrlBytes) refuse_url(text, "too long");
  if (!std::all_of(text.begin(), text.end(), is_url_byte)) refuse_url(text, "it holds a character that no URL has");
  Url url;
  std::string_view rest = text;
  if (rest.starts_with("https://")) {
    url.tls = true;
    url.port = 443;
  } else if (!rest.starts_with("http://")) {
    refuse_url(text, "it starts with neither http:// nor https://");
  }
  rest.remove_prefix(url.tls ? 8 : 7);
  if (rest.find_first_of("?#@") != std::string_view::npos) refuse_url(text, "no query, fragment or user name may be in it");
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  parse_authority(text, rest.substr(0, slash), url);
  url.path = rest.substr(slash);
  while (url.path.ends_with('/')) url.path.pop_back();
  return url;
}

std::string Url::authority() const {
  const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return port == (tls ? 443 : 80) ? name : fmt::format("{}:{}", name, port);
}

bool is_loopback(const Url& url) {
  const bool numeric = url.host.find_first_not_of("0123456789.") == std::string::npos;
  return url.host == "localhost" || url.host == "::1" || (numeric && url.host.starts_with("127."));
}

}  // namespace llava
