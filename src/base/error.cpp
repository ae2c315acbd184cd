#include "base/error.h"

namespace llava {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
    case ErrorKind::kInput:
    case ErrorKind::kFormat:
    case ErrorKind::kUnsupported:
      return 2;
    case ErrorKind::kResource:
    case ErrorKind::kInternal:
      return 1;
    case ErrorKind::kStopped:
      return 75;
  }
  return 1;
}

void assertion_failed(const char* condition, const char* why, const char* file, int line) {
  throw Error(ErrorKind::kInternal,
              fmt::format("{}:{}: internal error: {} ({})", file, line, why, condition),
              "this is a bug in llava: please report it with the command line");
}

}  // namespace llava
