#pragma once
#include <string>
#include <string_view>

#include "base/json.h"

namespace llava {

/// A YAML document as JSON, key order kept: plain scalars become null, booleans, integers or numbers (1e-3
/// too) where they look like it, quoted ones stay text. Limits: 4 MiB of text, depth kMaxJsonDepth, 200,000
/// nodes after aliases are expanded. Text that is JSON is read as JSON, also in builds without yaml-cpp.
/// Error{kFormat} names `what` and the line; Error{kUnsupported} where this build reads JSON only.
OrderedJson parse_yaml(std::string_view text, std::string_view what);

/// `json` as block-style YAML that parse_yaml reads back unchanged.
std::string to_yaml(const OrderedJson& json);

}  // namespace llava
