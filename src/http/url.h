#pragma once
#include <string>
#include <string_view>

namespace llava {

/// Where an endpoint is: "https://host:8000/v1" in its parts.
struct Url {
  bool tls = false;
  std::string host;  ///< a name or an address; an IPv6 address without its brackets
  int port = 80;
  std::string path;  ///< "" or "/v1", without a slash at its end

  /// As in a Host header: the port only where it is not the scheme's own.
  std::string authority() const;
};

/// Error{kUsage} that names `text` for what is not an http or https URL of host, port and path: a user name, a
/// query or a space has no place in an endpoint.
Url parse_url(std::string_view text);

/// Whether the host is this machine, so that nothing travels over a network.
bool is_loopback(const Url& url);

}  // namespace llava
