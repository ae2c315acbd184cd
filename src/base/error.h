#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

/// Errors of the whole program. Three sorts, never mixed:
///  - a bug: LLAVA_ASSERT;
///  - an operation cannot go on: throw Error (use fail());
///  - expected per item (one bad image in a set): return Outcome<T>.
namespace llava {

enum class ErrorKind {
  kUsage,        ///< wrong arguments                              exit 2
  kInput,        ///< a file or value of the user is missing or bad  exit 2
  kFormat,       ///< a file is malformed                          exit 2
  kUnsupported,  ///< well-formed, but maths we do not have        exit 2
  kResource,     ///< memory, disk, limits                         exit 1
  kInternal,     ///< a bug of ours                                exit 1
  kStopped,      ///< stopped on request, work saved               exit 75
};

/// Process exit code of a kind (design/cli.md): 0 done, 1 failed, 2 usage or bad input, 75 stopped.
int exit_code(ErrorKind kind);

/// What went wrong and where; `hint` says what to do next and may be empty.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message, std::string hint = {})
      : std::runtime_error(message), kind_(kind), hint_(std::move(hint)) {}
  ErrorKind kind() const { return kind_; }
  const std::string& hint() const { return hint_; }

 private:
  ErrorKind kind_;
  std::string hint_;
};

/// Throws Error{kind, formatted message}.
template <class... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

/// Runs `body`; an Error leaving it gets "<where>: " put before its message.
template <class Body>
auto with_context(std::string_view where, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Error& e) {
    throw Error(e.kind(), fmt::format("{}: {}", where, e.what()), e.hint());
  }
}

[[noreturn]] void assertion_failed(const char* condition, const char* why, const char* file, int line);

/// A value, or why there is none: for failures that are expected per item and are counted, not thrown.
template <class T>
class Outcome {
 public:
  Outcome(T value) : state_(std::move(value)) {}      // NOLINT: implicit on purpose
  Outcome(Error error) : state_(std::move(error)) {}  // NOLINT: implicit on purpose
  bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }
  const T& value() const& { return std::get<T>(state_); }
  T&& value() && { return std::get<T>(std::move(state_)); }
  const Error& error() const { return std::get<Error>(state_); }

 private:
  std::variant<T, Error> state_;
};

/// Runs `body` and turns an Error leaving it into the Outcome's error.
template <class Body>
auto try_outcome(Body&& body) -> Outcome<decltype(body())> {
  try {
    return body();
  } catch (const Error& e) {
    return e;
  }
}

}  // namespace llava

/// A condition that only a bug of ours can break.
#define LLAVA_ASSERT(condition, why) \
  ((condition) ? void(0) : ::llava::assertion_failed(#condition, why, __FILE__, __LINE__))
