#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/unicode.h"

namespace llava {

/// The `normalizer` of a tokenizer.json: what happens to the text before it is split. Null is the identity.
/// Known: NFC, NFD, NFKC, NFKD, Prepend, Replace (string pattern), Lowercase, Strip, Sequence.
class Normalizer {
 public:
  Normalizer() = default;
  /// Error{kUnsupported} names an unknown type.
  static Normalizer from_json(const Json& normalizer);

  /// Valid UTF-8 in and out. Error{kResource} if the text grows beyond 256 MiB.
  std::string apply(std::string_view text) const;
  bool is_identity() const { return steps_.empty(); }

 private:
  struct Step {
    enum class Kind { kForm, kPrepend, kReplace, kLowercase, kStrip };
    Kind kind = Kind::kForm;
    unicode::NormalForm form = unicode::NormalForm::kNfc;
    std::string pattern, content;
    bool strip_left = false, strip_right = false;
  };
  void add_steps(const Json& normalizer);
  static std::string apply_step(const Step& step, std::string_view text);

  std::vector<Step> steps_;
};

/// `text` with every `pattern` (not empty) replaced, left to right. Error{kResource} beyond 256 MiB.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

/// The string of a {"String": …} pattern; Error{kUnsupported} names a {"Regex": …} that has to be a string
/// here.
std::string string_pattern(const Json& object, std::string_view what);

}  // namespace llava
