#include "base/error.h"
#include "dist/transport.h"

namespace llava {

std::unique_ptr<Transport> connect(const Place& place, c10::Device, std::chrono::seconds) {
  throw Error(ErrorKind::kUnsupported,
              fmt::format("{} started {} processes, and this build trains in one only", place.launcher,
                          place.size),
              "install libgloo-dev and build with -DLLAVA_DIST=ON");
}

}  // namespace llava
