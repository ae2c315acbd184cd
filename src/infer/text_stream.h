#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace llava {

/// The text of an answer as it grows. Text that may turn out to begin a stop string is held back until that
/// is decided; what stands before a stop string is emitted, the stop string and all behind it never is.
class TextStream {
 public:
  /// Without a tokenizer (a model that has none) ids give no text.
  TextStream(const Tokenizer* tokenizer, std::vector<std::string> stop_strings);

  /// Text that is now certain. After stopped() nothing more comes.
  std::string push(std::int64_t id);
  /// The held-back rest, at the end of an answer that no stop string ended.
  std::string flush();
  bool stopped() const { return stopped_; }

 private:
  std::string release(bool everything);

  std::vector<Detokenizer> detokenizer_;  // one, or none
  std::vector<std::string> stop_strings_;
  std::string pending_;
  bool stopped_ = false;
};

}  // namespace llava
