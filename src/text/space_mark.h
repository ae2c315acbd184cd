#pragma once
#include <string_view>

namespace llava {

/// U+2581, which stands for a space in sentencepiece's pieces.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

}  // namespace llava
