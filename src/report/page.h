#pragma once
#include <string_view>

namespace llava {

/// The report page's style sheet and the script that draws its curves (inline SVG).
std::string_view page_style();
std::string_view page_script();

}  // namespace llava
