#include "base/error.h"
#include "base/fields.h"
#include "base/yaml.h"

namespace llava {

OrderedJson parse_yaml(std::string_view text, std::string_view what) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || text[first] != '{')
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: this build reads JSON configs only", what),
                "write the config as JSON, or build with -DLLAVA_WITH_YAML=ON");
  return parse_ordered_json(text, what);
}

}  // namespace llava
