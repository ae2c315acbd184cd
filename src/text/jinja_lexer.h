#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace llava::jinja {

struct Token {
  enum class Kind {
    kData,
    kBlockBegin,
    kBlockEnd,
    kVariableBegin,
    kVariableEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text;
  int line = 1;
};

/// Splits a template into text and the tokens of its tags; applies trim_blocks, lstrip_blocks and the -/+
/// marks, drops comments and one newline at the end of the source. Error{kFormat} with the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace llava::jinja
