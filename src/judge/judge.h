#pragma once
#include <string>
#include <vector>

namespace llava {

/// Who says what an answer is worth: a model loaded here, or one behind an endpoint.
class Judge {
 public:
  virtual ~Judge() = default;
  /// Called once before the first question: what takes long, so that wrong arguments are found before it.
  virtual void prepare() {}
  /// The judge's words about the image files; nothing of what it was asked before is seen. Error{kStopped} soon
  /// after a Ctrl-C.
  virtual std::string ask(const std::vector<std::string>& images, const std::string& prompt) = 0;
};

}  // namespace llava
