// Boost.Beast is large: this is the only file that includes it.
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "http/client.h"
#ifdef LLAVA_HTTP_TLS
#include <boost/asio/ssl.hpp>
#endif

namespace llava {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Request = http::request<http::span_body<const char>>;

/// Why an exchange ended without a reply.
struct Failure {
  std::string text;
  bool try_again = false;
};

/// Runs one operation after the other and, every few milliseconds, looks at the clock and at the caller's flag. An
/// operation that is left by an exception is never run again: its handler goes with the context.
class Operations {
 public:
  Operations(double timeout_seconds, const std::atomic<bool>* cancel)
      : timeout_seconds_(timeout_seconds), cancel_(cancel),
        deadline_(Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_seconds))) {}

  /// `start` gets the handler of the operation it begins. Returns the operation's error.
  template <class Start>
  error_code run(Start&& start) {
    std::optional<error_code> done;
    start([&done](const error_code& error, auto&&...) { done = error; });
    while (!done) {
      context_.restart();
      context_.run_one_for(std::chrono::milliseconds(20));
      if (cancel_ != nullptr && cancel_->load()) fail(ErrorKind::kStopped, "stopped");
      if (!done && Clock::now() > deadline_) throw Failure{fmt::format("no whole reply within {} s", timeout_seconds_)};
    }
    return *done;
  }
  asio::io_context& context() { return context_; }

 private:
  asio::io_context context_;
  double timeout_seconds_;
  const std::atomic<bool>* cancel_;
  Clock::time_point deadline_;
};

void connect(Operations& operations, tcp::socket& socket, const Url& url) {
  tcp::resolver resolver(operations.context());
  tcp::resolver::results_type addresses;
  error_code error = operations.run([&](auto handler) {
    resolver.async_resolve(url.host, std::to_string(url.port), tcp::resolver::numeric_service,
                           [&addresses, handler](const error_code& e, const tcp::resolver::results_type& found) mutable {
                             addresses = found;
                             handler(e);
                           });
  });
  if (error) throw Failure{fmt::format("the host \"{}\" is not known: {}", url.host, error.message()), true};
  error = operations.run([&](auto handler) { asio::async_connect(socket, addresses, handler); });
  if (error) throw Failure{fmt::format("no connection to {}: {}", url.authority(), error.message()), true};
  socket.set_option(tcp::no_delay(true), error);
}

std::string describe_read_error(const error_code& error, const HttpLimits& limits) {
  if (error == http::error::body_limit) return fmt::format("the reply is longer than {} bytes", limits.max_reply_bytes);
  if (error == http::error::header_limit)
    return fmt::format("the reply's header is longer than {} bytes", limits.max_header_bytes);
  if (error == http::error::end_of_stream || error == asio::error::eof || error == http::error::partial_message)
    return "the connection was closed before a whole reply came";
  if (error.category() == make_error_code(http::error::bad_version).category())
    return fmt::format("the reply is not HTTP ({})", error.message());
  return fmt::format("the reply could not be read: {}", error.message());
}

bool is_broken_connection(const error_code& error) {
  return error.category() == asio::error::get_system_category() || error == http::error::end_of_stream ||
         error == http::error::partial_message || error == asio::error::eof;
}

/// Of "Retry-After" the form in seconds; a date is not worth its rules.
std::optional<double> retry_after(std::string_view text) {
  char* end = nullptr;
  const std::string copy(text);
  const double seconds = std::strtod(copy.c_str(), &end);
  if (copy.empty() || *end != '\0' || !std::isfinite(seconds) || seconds < 0) return std::nullopt;
  return seconds;
}

template <class Stream>
HttpReply exchange(Operations& operations, Stream& stream, const Request& request, const HttpLimits& limits) {
  // A server may refuse a large request before it has read it all; then its reply says more than the failed write.
  const error_code written = operations.run([&](auto handler) { http::async_write(stream, request, handler); });
  beast::flat_buffer buffer(limits.max_header_bytes + 65536);
  http::response_parser<http::string_body> parser;
  parser.body_limit(limits.max_reply_bytes);
  parser.header_limit(static_cast<std::uint32_t>(limits.max_header_bytes));
  error_code read = operations.run([&](auto handler) { http::async_read_header(stream, buffer, parser, handler); });
  // Boost 1.74 lets a declared length above the limit pass.
  if (!read && parser.content_length().value_or(0) > limits.max_reply_bytes) read = http::error::body_limit;
  if (!read && !parser.is_done())
    read = operations.run([&](auto handler) { http::async_read(stream, buffer, parser, handler); });
  if (read && written) throw Failure{fmt::format("the request could not be sent: {}", written.message()), true};
  if (read) throw Failure{describe_read_error(read, limits), is_broken_connection(read)};
  HttpReply reply;
  reply.status = static_cast<int>(parser.get().result_int());
  const auto wait = parser.get()[http::field::retry_after];
  reply.retry_after_seconds = retry_after({wait.data(), wait.size()});
  reply.body = std::move(parser.get().body());
  return reply;
}

Request make_request(const Url& url, std::string_view path, std::string_view bearer, std::string_view body) {
  Request request(http::verb::post, url.path + std::string(path), 11);
  request.set(http::field::host, url.authority());
  request.set(http::field::user_agent, "llava");
  request.set(http::field::accept, "application/json");
  request.set(http::field::content_type, "application/json");
  if (!bearer.empty()) request.set(http::field::authorization, "Bearer " + std::string(bearer));
  request.body() = {body.data(), body.size()};
  request.keep_alive(false);
  request.prepare_payload();
  return request;
}

#ifdef LLAVA_HTTP_TLS
HttpReply exchange_tls(Operations& operations, const Url& url, const Request& request, const HttpLimits& limits) {
  asio::ssl::context tls(asio::ssl::context::tls_client);
  tls.set_default_verify_paths();
  tls.set_verify_mode(asio::ssl::verify_peer);
  asio::ssl::stream<tcp::socket> stream(operations.context(), tls);
  stream.set_verify_callback(asio::ssl::host_name_verification(url.host));
  error_code not_an_address;
  asio::ip::make_address(url.host, not_an_address);
  if (not_an_address) SSL_set_tlsext_host_name(stream.native_handle(), url.host.c_str());  // RFC 6066: names only
  connect(operations, stream.next_layer(), url);
  const error_code error =
      operations.run([&](auto handler) { stream.async_handshake(asio::ssl::stream_base::client, handler); });
  if (error)
    throw Failure{fmt::format("no TLS connection to {}: {}", url.authority(), error.message()), is_broken_connection(error)};
  return exchange(operations, stream, request, limits);
}
#else
[[noreturn]] HttpReply exchange_tls(Operations&, const Url& url, const Request&, const HttpLimits&) {
  throw Error(ErrorKind::kUnsupported, fmt::format("https://{}: this llava was built without OpenSSL", url.authority()),
              "install libssl-dev and build again, or use an http:// endpoint");
}
#endif

}  // namespace

bool http_is_built() { return true; }

bool https_is_built() {
#ifdef LLAVA_HTTP_TLS
  return true;
#else
  return false;
#endif
}

HttpReply http_post_json(const Url& url, std::string_view path, std::string_view bearer, std::string_view body,
                         const HttpLimits& limits, const std::atomic<bool>* cancel) {
  const Request request = make_request(url, path, bearer, body);
  HttpReply reply;
  try {
    Operations operations(limits.timeout_seconds, cancel);
    if (url.tls) return exchange_tls(operations, url, request, limits);
    tcp::socket socket(operations.context());
    connect(operations, socket, url);
    return exchange(operations, socket, request, limits);
  } catch (const Failure& failure) {
    reply.failure = failure.text;
    reply.try_again = failure.try_again;
  } catch (const boost::system::system_error& error) {
    reply.failure = error.what();
  }
  return reply;
}

}  // namespace llava
