#pragma once
#include <functional>
#include <string>

#include "base/error.h"

namespace llava::test {

/// The message of the Error that `body` ends with; empty if it ends well.
inline std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace llava::test
